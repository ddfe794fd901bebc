"""Whether a port can be had, said before any work."""

from __future__ import annotations

import errno
import socket

from leanmodel_api.errors import Issue, RefusedError


def check_port(port: int) -> None:
    """Check that nobody listens on a port.

    Raises:
        RefusedError: somebody does, or we may not.
    """
    for address in ("0.0.0.0", "127.0.0.1"):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                found = (
                    "is taken by another process"
                    if error.errno == errno.EADDRINUSE
                    else f"cannot be had: {error.strerror}"
                )
                raise RefusedError(
                    Issue(
                        "spec.serving.router.port",
                        f"port {port} {found}",
                        "write another one, or give --port",
                    )
                ) from None


def free_port() -> int:
    """Return a port that nobody listens on now, of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
