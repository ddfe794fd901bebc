"""The promise against known truth: how often a certificate is wrong, in worlds of every shape, and a plug-in threshold.

For each world and each (retain, risk) a calibration is made on fresh records, 500 times; whether its policy truly keeps
the promise is computed over the world's whole population. What was done is kept in `--work` line by line, so that an
interrupted run goes on. The result is printed as a page for docs/results/promise.md; the exit code is 1 where a promise
is broken more often than its risk and sampling error allow.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from leanmodel_routing import figures
from leanmodel_routing.calibration import calibrate_tables
from leanmodel_routing.parts import Parts
from leanmodel_routing.policies.route import accepted, route_table
from leanmodel_routing.predictors.candidates import LOGPROB_SIGNALS, Candidate
from leanmodel_routing.predictors.fit import feature_matrix, fit_signals, table_confidences
from leanmodel_routing.routing_calibration import calibrate_routing

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit" / "routing"))

from promise_worlds import WORLDS, World  # noqa: E402

RETAINS, RISKS = (0.9, 0.97), (0.05, 0.1)
GROUPED = "five groups"
CANDIDATES = (
    Candidate("min-logprob", ("min-logprob",), "fine"),
    Candidate("logprobs", LOGPROB_SIGNALS, "fine"),
    Candidate("logprobs-benefit", LOGPROB_SIGNALS, "benefit"),
)
"""All but those that read the prompt: here it tells nothing, and costs most of the time."""
CHUNK = 25
"""Draws of one piece of work."""
ALLOWED = 0.001
"""A cell fails where so many broken promises or more had a smaller chance than this, were the true rate the risk."""


@lru_cache
def world(name: str) -> World:
    """The world of a name, its signals read once."""
    made = WORLDS[name](np.random.default_rng(7))
    feature_matrix(fit_signals(LOGPROB_SIGNALS, made.table), made.table)
    return made


def work(name: str, retain: float, risk: float, first: int) -> list[dict[str, Any]]:
    """Calibrate CHUNK times; say of each what was certified, and whether it is true."""
    found, there = [], world(name)
    for seed in range(first, first + CHUNK):
        rng = np.random.default_rng([seed, round(retain * 1000), round(risk * 1000)])
        drawn = there.draw(rng)
        rows = rng.permutation(len(drawn))
        cuts = (0, int(len(rows) * 0.4), int(len(rows) * 0.8), len(rows))
        parts = [drawn.take(rows[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
        once = _grouped if name == GROUPED else _plain
        found.append(
            {
                "world": name,
                "retain": retain,
                "risk": risk,
                "seed": seed,
                **once(there, parts, retain, risk, seed),
            }
        )
    return found


def _plain(there: World, parts: list[Any], retain: float, risk: float, seed: int) -> dict[str, Any]:
    policy = calibrate_tables(*parts, retain, 1 - risk, seed, candidates=CANDIDATES)
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
    named = [_records(part) for part in parts]
    result = calibrate_routing(
        retain=retain,
        confidence=1 - risk,
        seed=seed,
        parts=Parts(*named),
        strategies=("cascade",),
        per_group=True,
    )
    accept = route_table(result.policy, there.table).accepted
    groups = np.array([record.group for record in there.table.records])
    broken = any(_broken(there, accept, retain, groups == name) for name in set(groups.tolist()))
    return {
        "certified": result.policy.certificate.certified,
        "large": float(1 - accept.mean()),
        "broken": broken,
    }


def _records(part: Any) -> tuple[Any, ...]:
    """The records of a drawn table, with the answers that were drawn."""
    return tuple(
        record.model_copy(update={"lean_quality": float(lean), "large_quality": float(large)})
        for record, lean, large in zip(part.records, part.lean, part.large, strict=True)
    )


def _broken(there: World, accept: Any, retain: float, of: Any = None) -> bool:
    quality, large = there.truth(accept, of)
    return bool(quality < retain * large - 1e-12)


def main() -> int:
    """Do what is left, and print the page; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500, help="calibrations of each cell (default: 500)")
    parser.add_argument("--worlds", default="", help="names, with commas; none: all")
    parser.add_argument(
        "--work", type=Path, default=Path(".leanmodel") / "promise.jsonl", help="what was done so far"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="file for the page; none: standard output alone")
    options = parser.parse_args()
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
    with ProcessPoolExecutor(options.processes) as pool, options.work.open("a") as kept:
        waiting = [pool.submit(work, *item) for item in left]
        for count, future in enumerate(as_completed(waiting), 1):
            found = future.result()
            done += found
            kept.write("".join(json.dumps(item) + "\n" for item in found))
            kept.flush()
            if count % 20 == 0:
                print(
                    f"{count} of {len(left)} pieces, {time.monotonic() - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    page, failed = report([item for item in done if item["world"] in names])
    print(page)
    if options.out:
        options.out.write_text(page)
    return 1 if failed else 0


def report(done: list[dict[str, Any]]) -> tuple[str, bool]:
    """The page, and whether a promise was broken too often."""
    cells: dict[tuple[str, float, float], list[dict[str, Any]]] = defaultdict(list)
    for item in {(i["world"], i["retain"], i["risk"], i["seed"]): i for i in done}.values():
        cells[item["world"], item["retain"], item["risk"]].append(item)
    rows, failed = [], False
    order = list(WORLDS)
    for (name, retain, risk), items in sorted(
        cells.items(), key=lambda cell: (order.index(cell[0][0]), cell[0][1:])
    ):
        count, broken = len(items), sum(item["broken"] for item in items)
        wrong = bool(binom.sf(broken - 1, count, risk) < ALLOWED)
        failed |= wrong
        naive = [item["plugin"] for item in items if "plugin" in item]
        rows.append(
            f"| {name} | {retain:g} | {risk:.0%} | {count} | {broken / count:.1%}{' **too often**' if wrong else ''} | "
            f"{np.mean([i['certified'] for i in items]):.0%} | {np.mean([i['large'] for i in items]):.0%} | "
            + (
                f"{np.mean(naive):.0%} | {np.mean([i['plugin_large'] for i in items]):.0%} |"
                if naive
                else "– | – |"
            )
        )
    told = "\n".join(
        f"- **{name}**: {' '.join((made.__doc__ or '').split())}" for name, made in WORLDS.items()
    )
    error = max(math.sqrt(risk * (1 - risk) / 500) for risk in RISKS)
    return (
        f"""# The promise against known truth

{datetime.date.today()}, `make bench-promise`. A calibration on fresh records for each draw (40% fit, 40% certify), judged
over the world's whole population. *Broken*: the routed pair's expected quality is below retain × the large model's; it
may be so in as many draws as the risk says (500 draws have a standard error of up to {error:.1%}). *Plug-in*: the cheapest
threshold that keeps the promise on the certify records, as a gateway with a tuned threshold does.

| world | retain | risk | draws | broken | certified | to the large model | plug-in: broken | to the large model |
|---|---|---|---|---|---|---|---|---|
"""
        + "\n".join(rows)
        + f"""

## The worlds

{told}

Records: 1,500 a draw (tiny: 150, five groups: 2,500); the population has 8,000 requests. A group's promise counts as
broken where it is for any of the five.
""",
        failed,
    )


if __name__ == "__main__":
    sys.exit(main())
