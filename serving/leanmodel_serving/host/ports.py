"""Ports: refuse a taken one at once, and find free ones for what the user never sees."""

from __future__ import annotations

import random
import socket

from leanmodel_api.errors import RefusedError, one

HIDDEN_RANGE = (20000, 29999)
"""Where the ports of Ray and HAProxy are looked for: below the range that Linux hands out by itself."""


def is_free(port: int, host: str = "") -> bool:
    """Say whether a TCP port can be bound on ``host`` (empty: on all interfaces)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def require_free(port: int, host: str) -> None:
    """Refuse a port that another process holds.

    Raises:
        RefusedError: naming the port and what to do.
    """
    if not is_free(port, host):
        raise one(
            RefusedError,
            "spec.serving.router.port",
            f"port {port} on {host or 'all interfaces'} is taken by another process",
            f"stop that process, or choose another port in the manifest or with --port (such as --port {port + 1})",
        )


def free_block(size: int, bounds: tuple[int, int] = HIDDEN_RANGE, seed: int | None = None) -> int:
    """Return the first port of ``size`` free neighbours within ``bounds`` (both ends included).

    Raises:
        RefusedError: no such block after looking everywhere.
    """
    low, high = bounds
    starts = list(range(low, high - size + 2, size))
    random.Random(seed).shuffle(starts)
    for start in starts:
        if all(is_free(port) for port in range(start, start + size)):
            return start
    raise one(
        RefusedError,
        "--hidden-ports",
        f"no {size} free ports in a row between {low} and {high}",
        "give a wider range such as --hidden-ports 20000-29999",
    )
