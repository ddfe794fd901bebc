"""Lives in which the operator is killed after its n-th write, one for each n, and how each of them ended.

Used by the tests for some n, and by ``benchmarks/crash_points.py`` for all of them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faulty_proxy import Call, Proxy
from kube_client import KubeClient, RefusedError, until
from life import Life
from operator_process import Keeper, Operator, write_kubeconfig
from simulator import Simulator


@dataclass
class Stage:
    """What lives are lived on."""

    api: KubeClient
    simulator: Simulator
    proxy: Callable[[], Proxy]
    flags: Callable[[str], list[str]]
    forked: bool = False


@dataclass
class Lived:
    """How a life went.

    Attributes:
        killed_after: the write after which the operator was killed; "" when it was not.
        writes: that were sent in all, each as verb and resource.
        wrong: what differs from what should be, in words.
    """

    number: int
    found: dict[str, Any]
    killed_after: str = ""
    writes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def live_once(stage: Stage, number: int = 0, usual: dict[str, Any] | None = None) -> Lived:
    """Lives one whole life; the operator is killed once its write of that number has been carried out.

    The answer to that write never reaches it. It is started again at once, under the same name, as the kubelet
    starts a container again.

    Args:
        number: of the write; 0 for none.
        usual: what is there at the end of an unkilled life, just before the deletion.
    """
    api = stage.api
    made = api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "crash-"}})
    namespace = made["metadata"]["name"]
    proxy = stage.proxy()
    began = time.monotonic()
    try:
        until(lambda: api.list("v1", "ServiceAccount", namespace), "the namespace has its service account")
        with tempfile.TemporaryDirectory() as folder:
            config = write_kubeconfig(Path(folder) / "kubeconfig", proxy.url)
            operator = Operator(Path(folder), config, *stage.flags(namespace), forked=stage.forked)
            lived = Lived(number, {})

            def wrote(call: Call) -> None:
                if call.number == number:
                    operator.kill()
                    lived.killed_after = f"{call.verb} {call.resource} {call.name}".strip()

            proxy.rules.wrote = wrote
            keeper = Keeper(operator)
            life = Life(api, stage.simulator, namespace)
            try:
                _live(life, lived, usual)
            except AssertionError as error:
                lived.wrong.append(str(error))
            finally:
                keeper.close()
            lived.writes = [f"{c.verb} {c.resource}" for c in proxy.rules.calls if c.number]
    finally:
        proxy.close()
        with suppress(RefusedError):
            api.delete("v1", "Namespace", namespace)
    lived.seconds = time.monotonic() - began
    return lived


def _live(life: Life, lived: Lived, usual: dict[str, Any] | None) -> None:
    lived.found = life.live()
    if usual is not None:
        lived.wrong += [
            f"{key} differs from the unkilled life's"
            for key in sorted(usual.keys() | lived.found.keys())
            if usual.get(key) != lived.found.get(key)
        ]
    life.delete()
    life.gone()
    lived.wrong += [f"made twice: {name}" for name in life.doubled()]
    lived.wrong += life.books.dropped
