"""Kills the operator after its n-th write, for every n of a LeanModel's life, and says how each life ended.

Needs what `make test-apiserver` needs. The result is printed as a page for docs/results/crash-points.md; the exit
code is 1 when one life ended otherwise than the unkilled one. `BENCH_ARGS='--only 3,17'` does some n alone.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "apiserver")]

from cluster import binaries  # noqa: E402
from cluster.control_plane import start_on_free_ports  # noqa: E402
from crash_lives import Lived, Stage, live_once  # noqa: E402
from kube_client import until  # noqa: E402
from simulated_router import SimulatedRouter  # noqa: E402
from simulator import Simulator  # noqa: E402
from stage import connect, define, flags_for, proxy_before  # noqa: E402


def main() -> int:
    """Run all lives; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default="", help="numbers of writes, with commas; none: all of the unkilled life"
    )
    parser.add_argument("--at-once", type=int, default=2, help="lives that are lived at the same time")
    parser.add_argument("--out", type=Path, help="file for the page; none: standard output alone")
    options = parser.parse_args()
    binaries.build(binaries.SERVERS)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="crash-points-"))
    plane = start_on_free_ports(folder)
    try:
        api = connect(plane)
        define(api, ROOT / "crds" / "leanmodel.yaml")
        define(api, binaries.definitions() / "ray.io_rayservices.yaml")
        plane.start_controllers()
        until(lambda: api.list("v1", "ServiceAccount", "default"), "the controllers run", 60)
        simulator = Simulator(lambda: connect(plane))
        routers = SimulatedRouter(simulator)
        stage = Stage(
            api, simulator, lambda: proxy_before(plane), lambda namespace: flags_for(namespace, routers), forked=True
        )  # fmt: skip
        unkilled, lives = live_all(stage, options.only, options.at_once)
        routers.close()
        simulator.close()
    finally:
        plane.stop()
        shutil.rmtree(folder)
    text = page(unkilled, lives, time.monotonic() - began)
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 1 if unkilled.wrong or any(lived.wrong for lived in lives) else 0


def live_all(stage: Stage, only: str, at_once: int) -> tuple[Lived, list[Lived]]:
    """Return the unkilled life, and one for each write of it after which the operator was killed."""
    unkilled = live_once(stage)
    if unkilled.wrong:
        return unkilled, []
    numbers = [int(part) for part in only.split(",") if part] or range(1, len(unkilled.writes) + 1)
    said = threading.Lock()

    def one(number: int) -> Lived:
        lived = live_once(stage, number, unkilled.found)
        with said:
            words = "; ".join(lived.wrong) or "as if unkilled"
            print(
                f"{number}: {lived.killed_after or 'no such write'}: {words} ({lived.seconds:.1f} s)",
                file=sys.stderr,
            )
        return lived

    with ThreadPoolExecutor(at_once) as pool:
        return unkilled, list(pool.map(one, numbers))


def page(unkilled: Lived, lives: list[Lived], seconds: float) -> str:
    """Return the results as Markdown."""
    killed = [lived for lived in lives if lived.killed_after]
    wrong = [lived for lived in lives if lived.wrong]
    arguments = " ".join(sys.argv[1:])
    rows: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for lived in killed:
        what = " ".join(lived.killed_after.split(" ")[:2])
        rows[what] += 1
        bad[what] += bool(lived.wrong)
    when = datetime.datetime.now(datetime.UTC).date()
    lines = [
        "# Crash points", "",
        f"{when}, `make bench-crash-points{f' BENCH_ARGS={arguments!r}' if arguments else ''}`, {os.cpu_count()} cores, {seconds:.0f} s.", "",
        "One LeanModel lives from `create` over Ready, another recipe, back to the first, suspend and a third recipe, and",
        "resume to `delete`, against a real API server, with its garbage collector, and the operator as a process. Jobs, KubeRay and",
        "router are played by a simulator. A proxy before the API server kills the operator (SIGKILL) after its n-th write",
        "has been carried out and before the operator has the answer; it is started again at once. Renewals of the Lease do",
        "not count: the clock drives them.", "",
        "A life counts as good when, just before its deletion, every object is equal to the unkilled life's but for times,",
        "uids, random words and how often traffic changed; no Job was made twice; no revision was taken out while it got requests;",
        "and nothing is left after the deletion.", "",
        f"- The unkilled life: {len(unkilled.writes)} writes, {unkilled.seconds:.1f} s."
        + (f" **It went wrong: {'; '.join(unkilled.wrong)}**" if unkilled.wrong else ""),
        f"- Lives with a kill: {len(killed)} (for each n from 1 on; {len(lives) - len(killed)} ended before their n-th write), median"
        f" {_median([lived.seconds for lived in killed]):.1f} s.",
        f"- Lives that ended otherwise: **{len(wrong)}**.", "",
        "| killed after | lives | of these ended otherwise |", "|---|---|---|",
        *(f"| {what} | {count} | {bad[what]} |" for what, count in sorted(rows.items())),
        *(["", *(f"- n = {lived.number} ({lived.killed_after}): {'; '.join(lived.wrong)}" for lived in wrong)] if wrong else []),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _median(values: list[Any]) -> float:
    return float(sorted(values)[len(values) // 2]) if values else 0.0


if __name__ == "__main__":
    sys.exit(main())
