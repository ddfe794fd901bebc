"""What the router adds to a request, beside LiteLLM's proxy: one core for each in turn, the same mock engine, keys on both.

Ours runs as users get it, in Ray Serve behind HAProxy, all of it on that one core, with API keys, ledger, limits, metrics,
log and a policy. Writes docs/results/router.md (the tables between its two marks; the words around them are kept) and a
flame graph of the router's replica beside it. The exit code is 1 when an answer or a stream was wrong.
Run: make bench-router; quickly: make bench-router BENCH_ARGS="--rounds 1 --seconds 1 --streams 100 --out /tmp/router.md"
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
from pathlib import Path

from hop.environment import ROOT, environment
from hop.page import faults, tables
from hop.rounds import OURS, Plan, Round, decision, profile, require_cores, run, say
from hop.subjects import LOCK, litellm_version

RESULT = ROOT / "docs" / "results" / "router.md"
FLAMES = "router.svg"
BEGIN, END = "<!-- figures: made by make bench-router -->", "<!-- end of figures -->"
START = f"# The hop\n\n{BEGIN}\n{END}\n"


def head(plan: Plan, note: str) -> list[str]:
    """Return what was run, in words."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "unknown")  # fmt: skip
    return [
        f"{datetime.date.today()}, {os.cpu_count()} cores ({model}), Python {sys.version.split()[0]}, LiteLLM {litellm_version()}"
        f"{'; ' + note if note else ''}. {plan.rounds} rounds; in each the engine alone, ours and LiteLLM come in turn, every router "
        f"on core {plan.router_core}, the engine and the clients on core {plan.other_core}. A figure is the median of the rounds, with "
        f"the least and the most. Loads last {plan.seconds:g} s after one of warm-up, a burst is {plan.streams} streams at once.",
        "",
    ]  # fmt: skip


def merged(page: str, figures: list[str]) -> str:
    """Return the page with the figures between its marks; one without marks gets them at its end."""
    if BEGIN not in page or END not in page:
        page = f"{page.rstrip()}\n\n{BEGIN}\n{END}\n" if page.strip() else START
    before, _, rest = page.partition(BEGIN)
    return before + "\n".join([BEGIN, "", *figures, "", END]) + rest.partition(END)[2]


def wrong(rounds: list[Round]) -> int:
    """Return how many of our answers and streams were wrong."""
    whole = sum(sum(found["wrong"].values()) for one in rounds for name in OURS.values() for found in one.whole[name].values())  # fmt: skip
    return whole + sum(faults(one.streams[name]) for one in rounds for name in OURS.values())


def main() -> int:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a load")
    parser.add_argument("--streams", type=int, default=1000, help="streams of a burst")
    parser.add_argument("--out", type=Path, default=RESULT, help="the page; the flame graph goes beside it")
    parser.add_argument("--note", default="", help="what else the machine did, for the page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="router-") as folder:
        plan = Plan(given.rounds, given.seconds, given.streams, Path(folder))
        require_cores(plan)
        python = environment(LOCK, "gateway")
        took, rounds = decision(plan), list[Round]()
        for one in run(plan):
            rounds.append(one)
            page = given.out.read_text(encoding="utf-8") if given.out.exists() else ""
            shown = Plan(len(rounds), plan.seconds, plan.streams, plan.work)
            text = merged(page, [*head(shown, given.note), *tables(rounds, took)])
            given.out.write_text(text, encoding="utf-8")
        say("flame graph")
        profile(plan, python.with_name("py-spy"), given.out.with_name(FLAMES))
    print(text)
    return 1 if wrong(rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
