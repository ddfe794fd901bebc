"""The promise against known truth: how often a certificate is wrong, in worlds of every shape, and a plug-in threshold.

For each world and each (retain, risk) a calibration is made on fresh records, 500 times; whether its policy truly keeps
the promise is computed over the world's whole population. All cells are worked on in rounds, so that they have the
same number of draws whenever it ends. What was done is kept in `--work` line by line, so that an interrupted run, or
one that `--minutes` ends, goes on. The result is printed as a page for docs/results/promise.md; the exit code is 1
where a promise is broken more often than its risk and sampling error allow.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pairs import PAIRS, Pair
from scipy.stats import binom

from leanmodel_api.policy import Scope
from leanmodel_routing import figures
from leanmodel_routing.calibration import Prepared, calibrate_tables
from leanmodel_routing.policies.route import accepted, route_table
from leanmodel_routing.predictors.candidates import LOGPROB_SIGNALS, PROMPT_SIGNAL, Candidate
from leanmodel_routing.predictors.fit import feature_matrix, fit_signals, table_confidences
from leanmodel_routing.routing_calibration import policy_of
from leanmodel_routing.table import Table
from leanmodel_routing.threads import single_threaded

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit" / "routing"))

from promise_worlds import WORLDS as MADE  # noqa: E402
from promise_worlds import World  # noqa: E402

RETAINS, RISKS = (0.9, 0.97), (0.05, 0.1)
ANSWER_SIGNALS = (*LOGPROB_SIGNALS, "margin", "answer-choice")


def _candidates(signals: tuple[str, ...]) -> tuple[Candidate, ...]:
    return (
        Candidate("min-logprob", ("min-logprob",), "fine"),
        Candidate("logprobs", signals, "fine"),
        Candidate("logprobs-benefit", signals, "benefit"),
    )


CANDIDATES = {"made": _candidates(LOGPROB_SIGNALS), "real": _candidates(ANSWER_SIGNALS)}
"""All but those that read the prompt, which cost most of the time; a promise to groups takes these too."""
CHUNK = 25
"""Draws of one piece of work."""
RECORDS = 1_500
"""Records of a draw from a real pair's."""
ALLOWED = 0.001
"""A cell fails where so many broken promises or more had a smaller chance than this, were the true rate the risk."""
Piece = tuple[str, float, float, int]


def population(pair: Pair) -> Callable[[np.random.Generator], World]:
    """What makes a world of a real pair's records: each answers in every draw as it answered once."""

    def made(rng: np.random.Generator) -> World:
        table = Table.of(pair.records(), pair.aggregate)
        return World(table, table.lean, table.large, draws=RECORDS)

    made.__doc__ = f"{pair.about} All {len(pair.records()):,} records are the population."
    return made


REAL = {pair.name: population(pair) for pair in PAIRS}
WORLDS: dict[str, Callable[[np.random.Generator], World]] = {**MADE, **REAL}


@lru_cache
def world(name: str) -> World:
    """The world of a name, its signals read once."""
    made = WORLDS[name](np.random.default_rng(7))
    read = ANSWER_SIGNALS if name in REAL else LOGPROB_SIGNALS
    read = (*read, PROMPT_SIGNAL) if made.grouped else read
    feature_matrix(fit_signals(read, made.table), made.table)
    return made


@single_threaded
def work(name: str, retain: float, risk: float, first: int) -> list[dict[str, Any]]:
    """Calibrate CHUNK times; say of each what was certified, and whether it is true."""
    found, there = [], world(name)
    for seed in range(first, first + CHUNK):
        rng = np.random.default_rng([seed, round(retain * 1000), round(risk * 1000)])
        drawn = there.draw(rng)
        rows = rng.permutation(len(drawn))
        cuts = (0, int(len(rows) * 0.4), int(len(rows) * 0.8), len(rows))
        parts = [drawn.take(rows[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
        cell = {"world": name, "retain": retain, "risk": risk, "seed": seed}
        if there.grouped:
            found.append(cell | _grouped(there, parts, retain, risk, seed))
        else:
            candidates = CANDIDATES["real" if name in REAL else "made"]
            found.append(cell | _plain(there, parts, retain, risk, seed, candidates))
    return found


def _plain(
    there: World,
    parts: list[Any],
    retain: float,
    risk: float,
    seed: int,
    candidates: Sequence[Candidate] | None,
) -> dict[str, Any]:
    policy = calibrate_tables(*parts, retain, 1 - risk, seed, candidates=candidates)
    everyone = len(there.table)
    nothing = np.full(everyone, np.nan)
    scores = nothing if policy.predictor is None else table_confidences(policy.predictor, there.table)
    accept = accepted(policy, scores, everyone)
    naive = accept
    if policy.predictor is not None:
        curve = figures.curve_of(parts[1], table_confidences(policy.predictor, parts[1]))
        naive = scores >= figures.plugin_threshold(curve, retain)
    return {
        "certified": policy.certificate.certified, "large": float(1 - accept.mean()), "broken": _broken(there, accept, retain),
        "plugin": _broken(there, naive, retain), "plugin_large": float(1 - naive.mean()),
    }  # fmt: skip


def _grouped(there: World, parts: list[Any], retain: float, risk: float, seed: int) -> dict[str, Any]:
    """A promise for each group, broken where it is for any."""
    given = Prepared(*parts, scope=Scope(), notes=())
    policy = policy_of(given, retain, 1 - risk, seed, None, 1, ("cascade",), 0.0, per_group=True)
    accept = route_table(policy, there.table).accepted
    broken = any(
        _broken(there, accept, retain, np.isin(np.arange(len(accept)), rows))
        for rows in there.table.groups.values()
    )
    return {
        "certified": policy.certificate.certified,
        "large": float(1 - accept.mean()),
        "broken": broken,
    }


def _broken(there: World, accept: Any, retain: float, of: Any = None) -> bool:
    quality, large = there.truth(accept, of)
    return bool(quality < retain * large - 1e-12)


def main() -> int:
    """Do what is left, and print the page; the exit code."""
    options = _options()
    names = [name.strip() for name in options.worlds.split(",") if name.strip()] or list(WORLDS)
    options.work.parent.mkdir(parents=True, exist_ok=True)
    done = (
        [json.loads(line) for line in options.work.read_text().splitlines()] if options.work.exists() else []
    )
    known = {(item["world"], item["retain"], item["risk"], item["seed"]) for item in done}
    left = [
        (name, retain, risk, first)
        for first in range(0, options.draws, CHUNK)
        for name in names for retain in RETAINS for risk in RISKS
        if (name, retain, risk, first + CHUNK - 1) not in known
    ]  # fmt: skip
    began = time.monotonic()
    with options.work.open("a") as kept:
        for count, found in enumerate(_worked(left, options.processes, began + 60 * options.minutes), 1):
            done += found
            kept.write("".join(json.dumps(item) + "\n" for item in found))
            kept.flush()
            if count % 20 == 0:
                took = time.monotonic() - began
                print(f"{count} of {len(left)} pieces, {took:.0f} s", file=sys.stderr, flush=True)
    page, failed = report([item for item in done if item["world"] in names and item["seed"] < options.draws])
    print(page)
    if options.out:
        options.out.write_text(page)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500, help="calibrations of each cell (default: 500)")
    parser.add_argument("--worlds", default="", help="names, with commas; none: all")
    parser.add_argument(
        "--work", type=Path, default=Path(".leanmodel") / "promise.jsonl", help="what was done so far"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="begin no piece after so long; the rest is done next time",
    )
    parser.add_argument("--out", type=Path, help="file for the page; none: standard output alone")
    return parser.parse_args()


def _worked(left: list[Piece], processes: int, until: float) -> Iterator[list[dict[str, Any]]]:
    """What each piece of work found, as it comes; none is begun after `until`."""
    if processes == 1:
        for piece in left:
            if time.monotonic() >= until:
                return
            yield work(*piece)
        return
    with ProcessPoolExecutor(processes) as pool:
        waiting = [pool.submit(work, *piece) for piece in left]
        for future in as_completed(waiting):
            if future.cancelled():
                continue
            yield future.result()
            if time.monotonic() >= until:
                pool.shutdown(wait=False, cancel_futures=True)


def report(done: list[dict[str, Any]]) -> tuple[str, bool]:
    """The page, and whether a promise was broken too often."""
    cells: dict[tuple[str, float, float], list[dict[str, Any]]] = defaultdict(list)
    for item in {(i["world"], i["retain"], i["risk"], i["seed"]): i for i in done}.values():
        cells[item["world"], item["retain"], item["risk"]].append(item)
    order = list(WORLDS)
    listed = sorted(cells.items(), key=lambda cell: (order.index(cell[0][0]), cell[0][1:]))
    rows = [_row(*cell, items) for cell, items in listed]
    wrong = [cell for cell, items in listed if _too_often(cell[2], items)]
    shares = {cell: float(np.mean([item["broken"] for item in items])) for cell, items in listed}
    worst = max(shares, key=lambda cell: shares[cell] / cell[2])
    naive = [np.mean([i["plugin"] for i in items]) for _, items in listed if "plugin" in items[0]]
    draws = sorted({len(items) for items in cells.values()})
    told = "\n".join(
        f"- **{name}** ({_draws(name)}): {' '.join((WORLDS[name].__doc__ or '').split())}"
        for name in order
        if any(cell[0] == name for cell in cells)
    )
    most = "; ".join(f"{risk:.0%}: {_most(risk, draws[0]) / draws[0]:.1%}" for risk in RISKS)
    return (
        f"""# The promise against known truth

{datetime.date.today()}, `make bench-promise`, {" to ".join(map(str, {draws[0]: 0, draws[-1]: 0}))} draws of each cell. A
calibration on fresh records for each draw (40% fit, 40% certify, 20% left for the report), judged over the world's whole
population. *Broken*: the routed pair's expected quality is truly below retain × the large model's; it may be so in as
many draws as the risk says. A cell with more than these shares would have come about with a chance below {ALLOWED:.1%}, were
its true rate the risk, and counts as wrong ({most}). *Plug-in*: the cheapest threshold that keeps the promise on the
certify records, as a gateway with a tuned threshold does.

{len(wrong)} of {len(listed)} cells are wrong. The worst against its risk: {worst[0]}, retain {worst[1]:g}, risk {worst[2]:.0%},
broken in {shares[worst]:.1%}. The plug-in threshold breaks its promise in {np.mean(naive):.0%} of all draws, in the middle
cell in {np.median(naive):.0%}. The certificate is on the careful side: what that costs is the difference between the two
shares sent to the large model.

| world | retain | risk | draws | broken | certified | to the large model | plug-in: broken | to the large model |
|---|---|---|---|---|---|---|---|---|
"""
        + "\n".join(rows)
        + f"""

## The worlds

{told}

In brackets: the records of a draw, which takes requests by lot, with replacement. The population of a made world has
8,000 requests, of which the chance that either model answers rightly is known; in each draw both models answer anew.
Records of real models ([{", ".join(REAL)}](../../benchmarks/pairs/README.md)) stay as they are. A promise to each group counts
as broken where it is for any of them.
""",
        bool(wrong),
    )


def _row(name: str, retain: float, risk: float, items: list[dict[str, Any]]) -> str:
    broken, plugin = _mean(items, "broken"), "– | –"
    if "plugin" in items[0]:
        plugin = f"{_mean(items, 'plugin'):.0%} | {_mean(items, 'plugin_large'):.0%}"
    return (
        f"| {name} | {retain:g} | {risk:.0%} | {len(items)} | {broken:.1%}{' **too often**' if _too_often(risk, items) else ''} | "
        f"{_mean(items, 'certified'):.0%} | {_mean(items, 'large'):.0%} | {plugin} |"
    )


def _mean(items: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([item[key] for item in items]))


def _most(risk: float, draws: int) -> int:
    """The most broken draws that do not count as too often."""
    return int(binom.isf(ALLOWED, draws, risk))


def _too_often(risk: float, items: list[dict[str, Any]]) -> bool:
    return sum(item["broken"] for item in items) > _most(risk, len(items))


def _draws(name: str) -> str:
    return f"{WORLDS[name](np.random.default_rng(7)).draws:,}"


if __name__ == "__main__":
    sys.exit(main())
