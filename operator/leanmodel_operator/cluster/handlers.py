"""kopf: watches LeanModels and their children, and puts names on the queue. The one module that knows kopf.

Only ``on.event`` handlers: they write nothing, neither an annotation nor a finalizer. kopf runs in a thread with a loop
of its own: when it ends it cancels every task of its loop that began after it, and in ours those would be our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import kopf

from .api import KINDS
from .mirror import Mirror, Name
from .names import KIND, SELECTOR
from .observe import WATCHED

_BACKOFF_CAP = 30.0
_END_SECONDS = 3.0
CHUNK = 50
"""Objects that kopf lists at once: see api.py's pages."""


class KindGoneError(Exception):
    """The API server no longer knows a kind that was watched; begin again."""


class EndlessBackoff:
    """Delays between attempts to reach the API server: doubling, capped, jittered, without an end.

    An object of its own and no generator: kopf iterates it anew for every request.
    """

    def __iter__(self) -> Iterator[float]:
        """Give the delays, in seconds."""
        whole = 0.5
        while True:
            yield whole * (0.5 + random.random() / 2)
            whole = min(whole * 2, _BACKOFF_CAP)


See = Callable[[str, str | None, dict[str, Any]], None]
"""Takes a kind, an event's type (None: listed), and the object."""


def registry(see: See) -> Any:
    """Return kopf's handlers: one for every kind that is watched."""
    found = kopf.OperatorRegistry()
    kopf.on.login(registry=found, id="login")(_login)
    for name in WATCHED:
        kind = KINDS[name]
        group, _, version = kind.group_version.rpartition("/")
        kopf.on.event(
            group=group, version=version, plural=kind.plural, id=f"see-{kind.plural}", registry=found
        )(_handler(name, see))
    return found


def _login(**arguments: Any) -> Any:
    """Return kopf's credentials; it asks again when they are refused (a service account's token is renewed)."""
    if os.environ.get("KUBERNETES_SERVICE_HOST") and "KUBECONFIG" not in os.environ:
        return kopf.login_with_service_account(**arguments)
    return kopf.login_with_kubeconfig(**arguments)


def _handler(kind: str, see: See) -> Any:
    async def handle(event: Any, **_: Any) -> None:
        see(kind, event["type"], dict(event["object"]))

    return handle


class NoEssence(kopf.DiffBaseStorage):
    """Remembers nothing of an object, since no handler of ours asks for a difference.

    Kopf's own copies every object that it sees twice, to compare; of this process's time that was a seventh.
    """

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        """Return an essence that never changes."""
        return {}

    def fetch(self, *, body: Any) -> Any:
        """Return what was remembered: the same."""
        return {}

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        """Write nothing."""


def settings() -> Any:
    """Return kopf's settings: no writes of its own, children filtered by the server, patience without an end."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.persistence.diffbase_storage = NoEssence()
    found.queueing.worker_limit = None
    # Nothing of ours is left half done by an event that is not seen: it only puts a name on a queue.
    found.queueing.exit_timeout = 0.1
    found.networking.error_backoffs = EndlessBackoff()
    found.networking.enforce_retry_after = True
    found.watching.reconnect_backoff = 0.5
    found.watching.chunk_size = CHUNK
    for name in WATCHED:
        if name != KIND:
            found.watching.label_selectors[KINDS[name].plural] = SELECTOR
    return found


async def watch(
    mirror: Mirror, add: Callable[[Name], None], listed: Callable[[], None], namespaces: tuple[str, ...]
) -> None:
    """Watch until cancelled.

    Args:
        mirror: takes each object.
        add: puts a LeanModel's name on the queue.
        listed: told whenever kopf has listed objects: at the start, and where a watch's version was too old. What
            was deleted before that shows in no event.
        namespaces: to watch; none for all.

    Raises:
        KindGoneError: a kind that was watched is gone.
        Exception: whatever else ended kopf.
    """
    loop = asyncio.get_running_loop()

    def saw(kind: str, change: str | None, item: dict[str, Any]) -> None:
        if change is None:
            listed()
        name = mirror.drop(kind, item) if change == "DELETED" else mirror.news(kind, item)
        if name is not None:
            add(name)

    def see(kind: str, change: str | None, item: dict[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # our loop is closed: this process is about to end
            loop.call_soon_threadsafe(saw, kind, change, item)

    stop = threading.Event()
    followed: Future[None] = Future()
    # A daemon: a kopf that does not end must not keep the process.
    threading.Thread(target=_follow, args=(see, namespaces, stop, followed), name="kopf", daemon=True).start()
    ended = asyncio.wrap_future(followed)
    try:
        await asyncio.shield(ended)
    except Exception as error:
        # kopf keeps its errors' classes to itself; each carries the HTTP status.
        if getattr(error, "status", None) == 404:
            raise KindGoneError(str(error)) from error
        raise
    finally:
        stop.set()
        await asyncio.wait([ended], timeout=_END_SECONDS)


def _follow(see: See, namespaces: tuple[str, ...], stop: threading.Event, followed: Future[None]) -> None:
    """Run kopf in this thread until ``stop`` is set."""
    configured = settings()
    # With a list of namespaces there is no right to watch kinds and namespaces, and no need.
    configured.scanning.disabled = bool(namespaces)
    try:
        asyncio.run(
            kopf.operator(
                registry=registry(see), settings=configured, standalone=True, clusterwide=not namespaces,
                namespaces=namespaces, stop_flag=stop, memo=None,
            )
        )  # fmt: skip
    except asyncio.CancelledError:
        followed.set_exception(RuntimeError("kopf cancelled itself"))
    except Exception as error:
        followed.set_exception(error)
    else:
        followed.set_result(None)
