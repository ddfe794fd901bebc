"""Where external providers are forbidden nothing leaves, whatever fails, however the settings change.

Every fallback is armed: a provider that would answer, its key, a lean and a large model that break in all ways, shadows
of every accepted answer, second tries. The same machine, allowed, does send: the test can fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policies_made import by_answer, made
from provider_double import Recorded, access, provider
from router_double import Setup, cut, fine, html, nonsense, refuse, router

from leanmodel_api.policy import SignalSpec
from leanmodel_api.router import Backend, Resilience, RouterSettings, Watching
from leanmodel_serving.router.lines import inside
from leanmodel_serving.router.outside import Closed, Door

Ask = tuple[str, bool, dict[str, str], str]
"""Endpoint, streaming, headers, and what the settings become while the large model is at work (empty: nothing)."""


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def half_and_hang(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'data: {"choices": [{"index": 0, "text": "half"}]}\n\n')
    return await hang(request)


async def drop(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def dead(request: web.Request) -> web.StreamResponse:
    error = {"message": "EngineDeadError", "type": "InternalServerError", "param": None, "code": 500}
    return web.json_response({"error": error}, status=500)


FAULTS = {
    "fine": fine, "html": html, "refuse": refuse, "cut": cut, "nonsense": nonsense, "hang": hang,
    "half and hang": half_and_hang, "drop": drop, "dead": dead,
}  # fmt: skip
LARGE_FAILS = sorted(set(FAULTS) - {"fine", "refuse"})


class Machine:
    """One router with its engines and a provider, used by all examples; forbidden or allowed by its settings file."""

    def __init__(self, folder: Path, theirs: Recorded, setup: Setup) -> None:
        self.folder, self.theirs, self.setup = folder, theirs, setup
        self.file = folder / "router.json"
        self.engines = {"large": "fine", "lean": "fine"}
        self.during: str = ""
        self.count = itertools.count(2)
        self.base = setup.app.state.settings

    def engine(self, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if self.during and name == "large":
                self.write(self.during)
            kind = self.engines[name]
            if kind == "redirect":
                raise web.HTTPPermanentRedirect(self.theirs.url + "/completions")
            return await FAULTS[kind](request)

        return handle

    def text(self, permission: Any = "Allowed", **changes: Any) -> str:
        """Settings of a new generation as JSON, not held against the model."""
        document = json.loads(self.base.to_json()) | {"generation": next(self.count)}
        document["external"] = json.loads(access(self.theirs.url, self.folder).to_json()) | {
            "permission": permission
        }
        return json.dumps(document | changes)

    def write(self, kind: str) -> None:
        """Bring the settings file into one of its states, of which only ``allowed`` allows."""
        whole = self.text()
        fresh = self.file.with_name("router.json.new")
        fresh.write_text(whole)  # what is not renamed does not count
        if kind == "missing":
            self.file.unlink(missing_ok=True)
            return
        fresh.write_bytes(
            {
                "allowed": whole,
                "forbidden": self.text("Forbidden"),
                "absent": self.text(external=None),
                "half": whole[: len(whole) // 2],
                "almost": whole[:-1],
                "empty": "",
                "no text": "\udcff" + whole,
                "unknown version": self.text(version="2"),
                "unknown word": self.text("allowed"),
                "unknown field": self.text(permissions="Allowed"),
                "a list": self.text(["Allowed"]),
                "nothing": self.text(None),
                "a lean model that is not there": self.text(strategy="AllLean", lean=None),
                "a policy of no use": self.text(policy=FUTURE),
            }[kind].encode("utf-8", "surrogateescape")
        )
        fresh.replace(self.file)


FUTURE = json.loads(
    made(
        "cascade", predictor=by_answer().model_copy(update={"signals": (SignalSpec(name="from-the-future"),)})
    ).model_dump_json()
)
"""Settings that can be read, and that the router refuses all the same: nobody knows what holds."""
FORBIDDING = [
    "forbidden", "absent", "half", "almost", "empty", "no text", "missing", "unknown version", "unknown word",
    "unknown field", "a list", "nothing", "a lean model that is not there", "a policy of no use",
]  # fmt: skip


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[asyncio.AbstractEventLoop, Machine, set[Any]]]:
    """The machine, the loop it runs in, and every address that anything in it has connected to."""
    folder, loop = tmp_path_factory.mktemp("privacy"), asyncio.new_event_loop()
    reached: set[Any] = set()
    connect = loop.sock_connect

    async def sock_connect(sock: Any, address: Any) -> None:
        reached.add(tuple(address[:2]))
        await connect(sock, address)

    loop.sock_connect = sock_connect  # type: ignore[method-assign]
    stack = contextlib.AsyncExitStack()

    async def start() -> Machine:
        found: list[Machine] = []

        def late(name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
            async def handle(request: web.Request) -> web.StreamResponse:
                return await found[0].engine(name)(request)

            return handle

        theirs = await stack.enter_async_context(provider())
        rules = {
            "strategy": "Cascade", "policy": made("cascade"), "overrides": True,
            "watching": Watching(shadowing=1.0), "resilience": Resilience(failures=4, open_seconds=0.05, retries=1.0),
        }  # fmt: skip
        setup = await stack.enter_async_context(
            router(
                folder,
                late("large"),
                lean=late("lean"),
                rules=rules,
                first_byte_timeout=0.08,
                answer_timeout=0.08,
                idle_timeout=0.08,
            )
        )
        found.append(Machine(folder, theirs, setup))
        return found[0]

    machine = loop.run_until_complete(start())
    yield loop, machine, reached
    loop.run_until_complete(stack.aclose())
    loop.close()


async def asked(machine: Machine, ask: Ask) -> httpx.Response | None:
    path, stream, headers, during = ask
    machine.during = during
    body: dict[str, Any] = {"model": "m", "stream": stream, "max_tokens": 4}
    body |= (
        {"messages": [{"role": "user", "content": "private"}]} if "chat" in path else {"prompt": "private"}
    )
    if path.startswith("/internal/"):
        headers = {**headers, "authorization": "Bearer internal-token"}
    try:
        async with asyncio.timeout(60):  # nothing hangs, however slow this machine is
            return await machine.setup.client.post(path, json=body, headers=headers)
    except httpx.HTTPError:
        return None
    except AssertionError:  # httpx's: the internal route leaves an answer unfinished whose engine breaks off
        assert path.startswith("/internal/")
        return None


async def played(machine: Machine, begins: str, script: list[Any]) -> list[httpx.Response | None]:
    """Carry out a script; return what the asks brought."""
    machine.during = ""
    machine.write(begins)
    machine.setup.app.reload()
    answers: list[httpx.Response | None] = []
    for step, value in script:
        if step == "settings":
            machine.write(value)
        elif step == "reload":
            machine.setup.app.reload()
        elif step == "engines":
            machine.engines = dict(value)
        else:
            answers += await asyncio.gather(*(asked(machine, ask) for ask in value))
    machine.during = ""
    await machine.setup.app.shared.watcher.settled()
    return answers


PATHS = ["/v1/completions", "/v1/chat/completions"]
INTERNAL = [f"/internal/revisions/{name}/v1/completions" for name in ("large", "lean", "external", "theirs")]
HEADERS = st.sampled_from(
    [{}, {"x-leanmodel-route": "large"}, {"x-leanmodel-route": "lean"}, {"x-session-id": "s"}, {"x-leanmodel-route": "external"}]
)  # fmt: skip


def asks(paths: list[str], during: list[str]) -> st.SearchStrategy[Ask]:
    return st.tuples(st.sampled_from(paths), st.booleans(), HEADERS, st.sampled_from(["", *during]))


def engines(large: list[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries(
        {"large": st.sampled_from(large), "lean": st.sampled_from([*sorted(FAULTS), "redirect"])}
    )


STEPS = st.one_of(
    st.tuples(st.just("settings"), st.sampled_from(FORBIDDING)),
    st.tuples(st.just("reload"), st.none()),
    st.tuples(st.just("engines"), engines([*sorted(FAULTS), "redirect"])),
    st.tuples(st.just("asks"), st.lists(asks([*PATHS, *INTERNAL], FORBIDDING), min_size=1, max_size=3)),
)
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@given(
    st.booleans(),
    st.sampled_from(FORBIDDING),
    engines([*LARGE_FAILS, "redirect"]),
    st.lists(STEPS, max_size=5),
)
@settings(max_examples=40, deadline=None, suppress_health_check=QUIET)
def test_forbidden_is_forbidden_under_any_fault(
    running: Any, allowed_before: bool, first: str, broken: dict[str, str], script: list[Any]
) -> None:
    """Not a request, not a connection, not a look-up; also where it was allowed until the moment before."""
    loop, machine, reached = running
    every = [("asks", [(path, stream, {}, "") for path in PATHS for stream in (False, True)])]
    steps = [("settings", first), ("engines", broken), *every, *script, ("engines", broken), *every]
    loop.run_until_complete(played(machine, "allowed" if allowed_before else "forbidden", steps))
    theirs: Recorded = machine.theirs
    assert not theirs.touched, f"it has left: {theirs.requests}"
    engine = machine.base.large.url.split("/")[2].split(":")
    assert reached <= {(engine[0], int(engine[1]))}


@given(engines(LARGE_FAILS), asks(PATHS, []), st.sampled_from(FORBIDDING))
@settings(max_examples=15, deadline=None, suppress_health_check=QUIET)
def test_what_is_withdrawn_while_the_large_model_fails_is_withdrawn(
    running: Any, broken: dict[str, str], ask: Ask, withdrawn: str
) -> None:
    """Allowed when the request came, forbidden when it would have gone: it stays."""
    loop, machine, _ = running
    steps = [("engines", broken), ("asks", [(*ask[:3], withdrawn)])]
    loop.run_until_complete(played(machine, "allowed", steps))
    at_work = [name for name, _ in machine.setup.seen if name == "large"]
    machine.setup.seen.clear()
    if at_work:  # or the lean model has answered, and the settings were never changed
        assert not machine.theirs.touched


def test_the_same_machine_sends_where_it_is_allowed(running: Any) -> None:
    """The counter-test: whatever way the large model fails, the provider is asked."""
    loop, machine, reached = running
    for large, path, stream in itertools.product([*LARGE_FAILS, "redirect"], PATHS, (False, True)):
        if large in ("cut", "half and hang") and stream:
            continue  # its first byte is out
        machine.theirs.requests.clear()
        steps = [("engines", {"large": large, "lean": "dead"}), ("asks", [(path, stream, {}, "")])]
        [reply] = loop.run_until_complete(played(machine, "allowed", steps))
        assert reply is not None and reply.headers["x-leanmodel-route"] == "external", (large, path, stream)
        assert len(machine.theirs.requests) == 1 and machine.theirs.connections
    port = int(machine.theirs.url.split(":")[2].split("/")[0])
    assert ("127.0.0.1", port) in reached


# ---------------------------------------------------------------- the door itself


def test_permission_is_asked_once_more_when_the_connection_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with provider() as theirs:
            given = access(theirs.url, tmp_path)
            open_ = _settings(given)
            file = tmp_path / "settings.json"
            door = Door(file, lambda: RouterSettings.model_validate_json(file.read_bytes()))
            original = aiohttp.TCPConnector.connect

            async def connect(self: Any, *args: Any) -> Any:
                found = await original(self, *args)
                if withdraw:
                    file.write_text(_settings(None).to_json())
                return found

            monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect)
            for withdraw in (False, True):
                file.write_text(open_.to_json())
                theirs.requests.clear()
                if not withdraw:
                    assert (await door.ask(given.provider, "chat", {}, "id")).ok
                    continue
                with pytest.raises(Closed):
                    await door.ask(given.provider, "chat", {}, "id")
                with pytest.raises(Closed):
                    async with door.stream(given.provider, "completions", {}, "id"):
                        raise AssertionError
                assert not theirs.requests
            await door.close()

    asyncio.run(scenario())


def _settings(external: Any) -> RouterSettings:
    return RouterSettings(model="m", large=Backend(revision="l", url="http://127.0.0.1:1"), external=external)


@pytest.mark.parametrize("endpoint", ["chat", "completions", "classify"])
def test_the_door_asks_all_three_settings(tmp_path: Path, endpoint: Any) -> None:
    """On the disk, in force, and those that the request began with."""

    async def scenario() -> None:
        async with provider() as theirs:
            yes, other = access(theirs.url, None), access(theirs.url, None, max_model_length=7)
            no = access(theirs.url, None, "Forbidden")
            file = tmp_path / "settings.json"
            for written, used, began in itertools.product((yes, other, no, None), repeat=3):
                file.write_text(_settings(written).to_json())
                door = Door(file, lambda used=used: _settings(used))  # type: ignore[misc]
                may = written == used == began == yes or written == used == began == other
                theirs.requests.clear()
                asking = door.ask((began or yes).provider, endpoint, {}, "id")
                if may and endpoint != "classify":
                    assert (await asking).ok
                elif began in (yes, other):
                    with pytest.raises(Closed):
                        await asking
                    assert not theirs.requests
                else:
                    asking.close()  # nobody who began so comes here: see kept_inside
                await door.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("host", "is_inside"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False),
     ("api.example.com", False), ("127.0.0.1.example.com", False), ("localhost.example.com", False), ("", False),
     ("0.0.0.0", False), ("2130706433", False)],
)  # fmt: skip
def test_an_engine_is_on_this_machine(host: str, is_inside: bool) -> None:
    assert inside(host) is is_inside


def test_an_engine_elsewhere_is_not_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, fine) as setup:
            settings = setup.app.state.settings
            gone = settings.model_copy(
                update={"large": Backend(revision="l", url="http://engine.example/l"), "generation": 2}
            )
            (tmp_path / "router.json").write_text(gone.to_json())
            setup.app.reload()
            reply = await setup.client.post("/v1/completions", json={"model": "m", "prompt": "p"})
            assert reply.status_code == 503 and "on this machine" in reply.json()["error"]["message"]

    asyncio.run(scenario())
