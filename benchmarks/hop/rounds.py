"""The rounds: in each the engine alone, our router and LiteLLM's proxy come in turn, each with its core to itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .environment import ROOT
from .settings import KINDS, MODEL, router_settings
from .subjects import Subject, litellm, mock_engine, ours

BARE, LITELLM = "the engine alone", "LiteLLM proxy"
OURS = {"predictive": "ours, predictive", "combined": "ours, combined"}
CLIENTS = (1, 16, 64)
STREAMS = 1000
LOAD_S = 900.0
TITLE = "the router's replica in Ray Serve, 16 clients"


@dataclass
class Plan:
    """What a run does.

    Attributes:
        rounds: how often all come in turn.
        seconds: of each load of whole answers.
        streams: how many at once.
        work: folder for files.
        router_core: where routers run.
        other_core: where the engine and the load generator run.
    """

    rounds: int
    seconds: float
    streams: int
    work: Path
    router_core: int = 0
    other_core: int = 1


@dataclass
class Round:
    """What one round found, by subject: loads by clients, bursts of streams."""

    whole: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    streams: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


def load(plan: Plan, subject: Subject, model: str, *words: object) -> dict[str, Any]:
    """Run one load from the other core; adds the processor time that its subject took."""
    before = subject.cpu_seconds()
    command = [
        "taskset",
        "-c",
        str(plan.other_core),
        sys.executable,
        "-m",
        "hop.load",
        subject.url,
        subject.key,
        model,
    ]
    done = subprocess.run(
        [*command, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=LOAD_S,
        check=True,
        cwd=ROOT / "benchmarks",
    )
    found: dict[str, Any] = json.loads(done.stdout)
    found["cpu_seconds"] = subject.cpu_seconds() - before
    return found


def run(plan: Plan) -> Iterator[Round]:
    """Yield the rounds, one by one."""
    for number in range(plan.rounds):
        found = Round()
        folder = plan.work / f"round-{number}"
        folder.mkdir()
        with mock_engine(plan.other_core, folder) as engine:
            _all(plan, found, BARE, engine, "large", bursts=2)
            with ours(plan.router_core, folder / "ours", engine.url) as router:
                for kind in KINDS:
                    router.follow(router_settings(engine.url, kind))
                    _all(plan, found, OURS[kind], router, MODEL, bursts=2)
            with litellm(plan.router_core, folder / "litellm", engine.url) as proxy:
                _all(plan, found, LITELLM, proxy, MODEL, bursts=1)
        yield found


def _all(plan: Plan, found: Round, name: str, subject: Subject, model: str, bursts: int) -> None:
    found.whole[name] = {
        clients: load(plan, subject, model, "whole", clients, plan.seconds) for clients in CLIENTS
    }
    found.streams[name] = load(plan, subject, model, "streams", plan.streams, bursts)
    for clients, one in found.whole[name].items():
        say(
            f"{name}, {clients} clients: {one['per_second']:.0f}/s, p50 {one['took_p50']:.2f} ms, p99 {one['took_p99']:.2f} ms, wrong {one['wrong']}"
        )
    for burst in ("first", "second")[:bursts]:
        one = found.streams[name][burst]
        say(
            f"{name}, {burst} burst: {one['asked']} streams, first event p99 {one['first_p99']:.0f} ms, end p99 {one['last_p99']:.0f} ms, wrong {one['wrong']}"
        )


def say(line: str) -> None:
    """Print a line for whoever waits."""
    print(line, file=sys.stderr, flush=True)


def decision(plan: Plan) -> dict[str, dict[str, float]]:
    """Return how long decisions take, on the routers' core."""
    done = subprocess.run(
        ["taskset", "-c", str(plan.router_core), sys.executable, "-m", "hop.decision"],
        capture_output=True, text=True, check=True, cwd=ROOT / "benchmarks",
    )  # fmt: skip
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def profile(plan: Plan, py_spy: Path, target: Path, seconds: int = 8) -> None:
    """Write a flame graph of our router's replica under 16 clients.

    Args:
        py_spy: the sampling profiler.
        target: the SVG file.
    """
    folder = plan.work / "profile"
    folder.mkdir()
    with (
        mock_engine(plan.other_core, folder) as engine,
        ours(plan.router_core, folder / "ours", engine.url) as router,
    ):
        asking = subprocess.Popen(
            ["taskset", "-c", str(plan.other_core), sys.executable, "-m", "hop.load", router.url, router.key, MODEL,
             "whole", "16", str(seconds + 6)], cwd=ROOT / "benchmarks", stdout=subprocess.DEVNULL,
        )  # fmt: skip
        pid = next(pid for pid in router.processes() if b"ServeReplica" in _title(pid))
        subprocess.run(
            ["taskset", "-c", str(plan.other_core), str(py_spy), "record", "--pid", str(pid), "--rate", "200", "--function",
             "--duration", str(seconds), "--format", "flamegraph", "--output", str(target)],
            check=True, capture_output=True,
        )  # fmt: skip
        asking.wait()
    # py-spy writes its own command there, with this machine's paths.
    drawn = re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{TITLE}", target.read_text(encoding="utf-8"))
    # A picture alone: names show without its script, and pages that show pictures run none.
    drawn = re.sub(r"<script.*?</script>", "", drawn, flags=re.DOTALL).replace(' onload="init(evt)"', "")
    target.write_text(drawn, encoding="utf-8")


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def require_cores(plan: Plan) -> None:
    """Refuse a machine with fewer cores than the run needs.

    Raises:
        SystemExit: there is but one.
    """
    if not {plan.router_core, plan.other_core} <= os.sched_getaffinity(0):
        raise SystemExit("two cores are needed: one for the router, one for the engine and the clients")
