"""Engines and providers that fail, clients that leave, a router that is killed, 50 policies: what do clients see?

Real router processes before engine doubles. Writes docs/results/faults.md; the exit code is 1 where an error is not in
OpenAI's form, an answer is short, or a request is left at an engine.
Run: make bench-faults
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "doubles"))

from counting_engine import counting_engine  # noqa: E402
from fault_run import Seen, Swapped, policies_under_load, settings, streams_under_a_kill, two_routers  # noqa: E402
from fault_table import FAULTS, Left, Row, failing, leaving  # noqa: E402

RESULT = ROOT / "docs" / "results" / "faults.md"
WHO = {
    "lean": "the lean model (asked for by header; the large one is well)",
    "large": "the large model (nobody else is asked for it)",
    "theirs": "the external provider (the large model is gone; the lean one is well)",
}


async def killed(folder: Path, streams: int) -> tuple[list[Seen], int, int]:
    """Kill one of two routers under so many streams.

    Returns:
        The streams; how many the engine was told to stop; how many it was still at work for afterwards.
    """
    async with counting_engine() as engine:
        (folder / "router.json").write_text(settings(engine.url).to_json())
        async with two_routers(folder) as (routers, session):
            urls = [f"http://127.0.0.1:{port}" for port in routers.ports]
            seen = await streams_under_a_kill(session, engine, urls, lambda _: routers.kill(1), streams)
            await engine.idle()
            return seen, engine.stopped.total(), engine.running.total()


def told(counts: Counter[str]) -> str:
    """Return what clients saw, the most frequent first."""
    return "; ".join(f"{what} ({count})" for what, count in counts.most_common())


def document(
    rows: list[Row], left: list[Left], kill: tuple[list[Seen], int, int], swapped: Swapped, changes: int
) -> str:
    """Return what was found as a page."""
    seen, stopped, running = kill
    whole = sum(one.whole for one in seen)
    lines = [
        "# Faults",
        "",
        "`make bench-faults`: real router processes, in which a request ends with its client as in a replica of Ray Serve, "
        "before doubles that fail on purpose and count what is under way, as vLLM's `num_requests_running` does. Second tries and "
        "breakers are off, so that each fault is met.",
        "",
        f"{datetime.date.today()}, {os.cpu_count()} cores shared with other work. Counts, and no timings.",
        "",
        "## Models and providers that fail",
        "",
        "What clients saw, and how many of them. *At work afterwards*: requests that engines still had.",
        "",
    ]
    for who, name in WHO.items():
        lines += [
            f"**{name[0].upper()}{name[1:]}**",
            "",
            "| it | whole answers | streams | at work afterwards |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {FAULTS[row.fault]} | {told(row.whole)} | {told(row.stream)} | {row.running} |"
            for row in rows
            if row.who == who
        ]
        lines.append("")
    lines += [
        "An error event is the last before `[DONE]`; what was out before it stays out, and nobody else goes on from there.",
        "",
        "## Clients that leave",
        "",
        "A third each closes, resets, and closes half and reads on.",
        "",
        "| while | clients | engine told to stop | at work afterwards |",
        "|---|---|---|---|",
        *(f"| {row.moment} | {row.clients} | {row.stopped} | {row.running} |" for row in left),
        "",
        "## A router is killed",
        "",
        f"`kill -9` of one of two routers in the middle of {len(seen)} streams, half of them through each.",
        "",
        "| | |",
        "|---|---|",
        f"| streams through the other router, every byte right | {whole} |",
        f"| streams through the killed one, broken off | {len(seen) - whole} |",
        f"| told to the engine | {stopped} |",
        f"| at work afterwards | {running} |",
        "",
        "## Policies change under load",
        "",
        f"{changes} changes of the mounted settings file, as the kubelet swaps it, before two routers and eight clients, each policy "
        "in force at both before the next. Half of the answers are streams. An answer is right when route, model and every byte are "
        "those of the one policy that its header names.",
        "",
        "| | |",
        "|---|---|",
        f"| answers | {swapped.answers.total()} |",
        f"| under so many policies | {len(swapped.answers)} |",
        f"| ended after the next policy had been written | {swapped.late} |",
        f"| errors, short answers, or of two policies | {len(swapped.wrong)} |",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--each", type=int, default=10, help="requests of each kind under each fault")
    parser.add_argument("--clients", type=int, default=12, help="clients that leave at each moment")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--changes", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("failing", "leaving", "killed", "policies")]
        for place in places:
            place.mkdir()
        rows = asyncio.run(failing(places[0], given.each))
        left = asyncio.run(leaving(places[1], given.clients))
        kill = asyncio.run(killed(places[2], given.streams))
        swapped = asyncio.run(policies_under_load(places[3], given.changes))
    page = document(rows, left, kill, swapped, given.changes)
    RESULT.write_text(page, encoding="utf-8")
    print(page)
    wrong = [words for row in rows for words in row.wrong] + swapped.wrong
    wrong += [f"{row.moment}: {row}" for row in left if row.stopped != row.clients or row.running]
    broken = [one for one in kill[0] if not one.whole]
    if len(broken) != given.streams // 2 or kill[1] != len(broken) or kill[2]:
        wrong.append(f"the kill: {len(broken)} broken, {kill[1]} stopped, {kill[2]} left")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
