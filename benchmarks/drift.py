"""Drift: how soon the monitors see that requests come from another topic, and how seldom they cry without one.

Each run calibrates on fresh records of a world of topics and then routes requests to it, period by period, as a router
would: what the policy accepts is shadowed by lot, tallies go into the watch, and once it alarms the router's own choice
is asked where requests start. Undrifted runs count false alarms; drifted ones count requests from the change until the
alarm, beside the number that the monitors themselves state. The result is printed as a page for docs/results/drift.md;
the exit code is 1 where there were more false alarms than the level allows, or alarms that came late too often.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from leanmodel_api.policy import Record
from leanmodel_api.router import Backend, RouterSettings
from leanmodel_api.routing_policy import RoutingPolicy, Strategy
from leanmodel_routing.bounds import label_free
from leanmodel_routing.calibration import prepare
from leanmodel_routing.monitors import Tally, Watch
from leanmodel_routing.monitors.score_drift import requests_to_see
from leanmodel_routing.policies.route import RoutedTable, route_table
from leanmodel_routing.routing_calibration import policy_of
from leanmodel_routing.table import Table
from leanmodel_serving.router.ask import Ask
from leanmodel_serving.router.route import choose
from leanmodel_serving.router.snapshot import Snapshot

Floats = NDArray[np.float64]
RETAIN, RISK, LEVEL = 0.95, 0.1, 0.05
RATE = 0.05
"""Share of the accepted requests that are shadowed."""
RECORDS, POOL = 2_000, 8_000
"""Records of a calibration, and the requests that they are drawn from. None of these comes again as traffic."""
PERIOD, QUIET, LENGTH, LONGEST = 50, 1_000, 20_000, 30_000
"""Requests of a period; before the drift; of an undrifted run; after the drift, when a run is given up."""
DRIFTED = 5_000
"""Different requests after a drift."""
AFTERWARDS = 200
"""Requests that are routed after an alarm."""
ALLOWED = 0.001
"""A count fails where so many or more had a smaller chance than this, were the true rate the stated one."""
STRATEGIES: tuple[Strategy, ...] = ("cascade", "predictive")

WORDS = {
    "greet": "hello dear friend how are you today say something nice to my neighbour please",
    "sum": "add these numbers and tell me the total of the bill with tax for each month",
    "prove": "prove that the theorem holds for every finite group ring field and lemma therefore",
    "translate": "translate this letter into french keep its tone formal sentence by word order",
}
CHANCES = {"greet": (0.985, 0.99), "sum": (0.9, 0.97), "prove": (0.1, 0.95), "translate": (0.6, 0.97)}
"""Topic: mean chances that the lean and the large model answer rightly."""
USUAL = {"greet": 0.6, "sum": 0.25, "prove": 0.15}
"""What is certified."""
DRIFTS = {
    "to the hard topic": {"prove": 1.0},
    "to a new topic, answered wrongly and as surely as the easy one": {"translate": 1.0},
    "a fifth of them to that new topic": {"greet": 0.48, "sum": 0.2, "prove": 0.12, "translate": 0.2},
    "nowhere: the lean model errs on one right answer in six, as surely as ever": USUAL,
}
NAMES = ("", *DRIFTS)
ERRS = 1 / 6
"""Of the last of them."""


@dataclass(frozen=True)
class Traffic:
    """Requests of a mix of topics, and the chance [n] that either model answers each rightly."""

    table: Table
    lean: Floats
    large: Floats

    def records(self, n: int, rng: np.random.Generator) -> list[Record]:
        """Return n different ones of the first POOL, drawn by lot and answered anew.

        Two wrong answers are never the same, and no answer tells by its words whether it is right.
        """
        found = []
        for row in rng.permutation(POOL)[:n].tolist():
            lean, large = rng.random() < self.lean[row], rng.random() < self.large[row]
            found.append(
                self.table.records[row].model_copy(
                    update={
                        "lean_quality": float(lean), "large_quality": float(large),
                        "lean_answer": f"{'answer' if lean else 'guess'} {row}", "large_answer": f"{'answer' if large else 'slip'} {row}",
                    }
                )
            )  # fmt: skip
        return found

    @property
    def different(self) -> Floats:
        """The chance [n] that both models answer differently."""
        return 1.0 - self.lean * self.large


@lru_cache
def traffic(mix: str) -> Traffic:
    """The requests of a mix: USUAL for the empty name, else one of DRIFTS."""
    rng = np.random.default_rng([3, NAMES.index(mix)])
    shares, size = (DRIFTS[mix], DRIFTED) if mix else (USUAL, POOL + LENGTH)
    topics = rng.choice(list(shares), size=size, p=list(shares.values()))
    means = np.array([CHANCES[topic] for topic in topics])
    ease = rng.normal(0.0, 1.0, size)
    lean, large = (1 / (1 + np.exp(-(np.log(mean / (1 - mean)) + ease))) for mean in means.T)
    # The new topic looks to the lean model like the easiest one: it is as sure of it, and wrong.
    seen = np.where(topics == "translate", 1 / (1 + np.exp(-(4.2 + ease))), lean)
    logit = np.log(seen / (1 - seen))[:, None] + rng.normal(0, 0.8, (size, 3))
    logprobs = np.minimum(-np.log1p(np.exp(-logit)), -1e-6)
    records = [
        Record(
            prompt=" ".join(rng.choice(WORDS[topic].split(), size=12)) + f" {row}", lean_quality=0.0, large_quality=0.0,
            lean_answer=f"answer {row}", large_answer=f"answer {row}", lean_logprobs=tuple(logprobs[row].tolist()),
            lean_cost=0.001, large_cost=0.01,
        )
        for row, topic in enumerate(topics.tolist())
    ]  # fmt: skip
    if mix == NAMES[-1]:
        lean = lean * (1 - ERRS)
    return Traffic(Table.of(records), lean, large)


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        alarms: monitors that raised it; empty where none did.
        requests: from the change (or the start) to the alarm, or to where the run was given up.
        stated: the number that the monitors state for this change; None where there was none, or none would see it.
        bound_true: whether the certified bound holds for the traffic before the change.
        large_after: share of the requests after the alarm that the router sent to the large model; None without one.
        large_before: the same before it.
    """

    alarms: tuple[str, ...]
    requests: int
    stated: int | None
    bound_true: bool
    large_after: float | None
    large_before: float


def run(policy: RoutingPolicy, mix: str, seed: int, length: int, before: RoutedTable) -> Outcome:
    """Route usual requests, then those of a mix (empty: no change) for at most `length` requests.

    `before`: the usual requests, as the policy routes them.
    """
    rng = np.random.default_rng([seed, 1 + NAMES.index(mix)])
    usual, changed = traffic(""), traffic(mix)
    routed = {"": before, mix: route_table(policy, changed.table) if mix else before}
    watch = Watch.of(policy, RATE, LEVEL)
    harm = float(np.mean(routed[""].accepted * usual.different))
    bounds = [monitor.bound for monitor in watch.label_free.values()]
    stated = stated_requests(watch, policy, routed[mix], changed) if mix else None
    large_before = large_share(policy, usual, (), rng)
    phases: list[tuple[str, int]] = [("", QUIET), (mix, length)] if mix else [("", length)]
    seen = 0
    for name, most in phases:
        seen = 0
        for tally in tallies(watch, routed[name], traffic(name), rng, most):
            watch = watch.fold({"": tally})
            seen += tally.requests
            if watch.alarms():
                break
        if watch.alarms() and name != phases[-1][0]:
            seen = -1  # a false alarm before the change
            break
    alarms = tuple(sorted(watch.alarms()))
    after = large_share(policy, changed, alarms, rng) if alarms else None
    return Outcome(alarms, seen, stated, all(harm <= bound for bound in bounds), after, large_before)


def tallies(
    watch: Watch, routed: RoutedTable, of: Traffic, rng: np.random.Generator, most: int
) -> Iterator[Tally]:
    """Periods of requests, counted as a router counts them, until there were `most`."""
    assert routed.scores is not None
    fresh = POOL + rng.permutation(len(of.table) - POOL)
    for first in range(0, most, PERIOD):
        tally = watch.tally()
        # Usual requests come once each: only so are they like the certified ones, which the predictor had not seen.
        usual = len(of.table) > DRIFTED
        rows = fresh[first : first + PERIOD] if usual else rng.integers(len(of.table), size=PERIOD)
        accepted, different = routed.accepted[rows], rng.random(PERIOD) < of.different[rows]
        shadowed = accepted & (rng.random(PERIOD) < RATE)
        for score, kept in zip(routed.scores[rows].tolist(), accepted.tolist(), strict=True):
            tally.request(score, accepted=kept)
        for harm in different[shadowed].tolist():
            tally.shadow(harm, RATE)
        yield tally


def stated_requests(watch: Watch, policy: RoutingPolicy, routed: RoutedTable, of: Traffic) -> int | None:
    """The least of the numbers that the monitors state for requests like these, seen 9 times in 10."""
    assert routed.scores is not None and policy.scores is not None and watch.score_drift is not None
    harm = float(np.mean(routed.accepted * of.different))
    found = [monitor.requests_to_see(harm, periods=QUIET // PERIOD) for monitor in watch.label_free.values()]
    bins = watch.tally()
    for score in routed.scores.tolist():
        bins.request(score, accepted=False)
    weights = [float(bins.scores[place]) for place in range(len(policy.scores.counts))]
    level = watch.score_drift.level
    found.append(
        requests_to_see(policy.scores, weights, level, quiet=QUIET, period=PERIOD, most=LONGEST // 10)
    )
    return min((number for number in found if number is not None), default=None)


def large_share(
    policy: RoutingPolicy, of: Traffic, alarms: tuple[str, ...], rng: np.random.Generator
) -> float:
    """Share of requests that the router starts at the large model while these monitors are in alarm."""
    address = "http://127.0.0.1:1"
    settings = RouterSettings(
        model="m", strategy="Cascade", policy=policy, large=Backend(revision="large", url=address),
        lean=Backend(revision="lean", url=address),
    )  # fmt: skip
    state = Snapshot.of(settings)
    rows = rng.integers(len(of.table), size=AFTERWARDS).tolist()
    asks = [Ask("completions", {"prompt": of.table.records[row].prompt}, False, False) for row in rows]
    return float(np.mean([choose(state, ask, alarms=alarms).way == "large" for ask in asks]))


def policy_for(strategy: Strategy, seed: int) -> RoutingPolicy:
    """Return a policy calibrated on fresh usual records, with the bound that its report part shows."""
    records = traffic("").records(RECORDS, np.random.default_rng([seed, 0]))
    given = prepare(
        records, RETAIN, 1 - RISK, seed, parts=None, metric="quality", aggregate=None, scope=None, looks=1
    )
    policy = policy_of(given, RETAIN, 1 - RISK, seed, None, 1, (strategy,), 0.0, per_group=False)
    bound = label_free(given.report, route_table(policy, given.report).accepted, 1 - RISK, "report")
    certificate = policy.certificate.model_copy(update={"label_free": bound})
    policy = policy.model_copy(update={"certificate": certificate})
    return policy.model_copy(update={"digest": policy.computed_digest()})


def main() -> int:
    """Run it all, and print the page; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="runs of each kind (default: 100)")
    parser.add_argument(
        "--length", type=int, default=LENGTH, help=f"requests of an undrifted run, at most {LENGTH:,}"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--out", type=Path, help="file for the page; none: standard output alone")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[Outcome]] = {}
    left_out = dict.fromkeys(STRATEGIES, 0)
    began, seeds = time.monotonic(), dict.fromkeys(STRATEGIES, 0)
    for count in range(1, options.runs + 1):
        if time.monotonic() > began + 60 * options.minutes:
            break
        for strategy in STRATEGIES:
            policy = None
            while policy is None or policy.kind != strategy:
                left_out[strategy] += policy is not None
                seeds[strategy] += 1
                policy = policy_for(strategy, seeds[strategy])
            before = route_table(policy, traffic("").table)
            for mix in NAMES:
                length = LONGEST if mix else options.length
                outcome = run(policy, mix, seeds[strategy], length, before)
                found.setdefault((strategy, mix), []).append(outcome)
        print(f"{count} of {options.runs}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    page, failed = report(found, left_out, options.length)
    print(page)
    if options.out:
        options.out.write_text(page)
    return 1 if failed else 0


def report(
    found: dict[tuple[str, str], list[Outcome]], left_out: dict[Strategy, int], length: int
) -> tuple[str, bool]:
    """The page, and whether something was false or late too often."""
    quiet, drifted, failed = [], [], False
    for (strategy, mix), runs in found.items():
        if mix:
            row, wrong = _drifted_row(strategy, mix, runs)
            drifted.append(row)
        else:
            row, wrong = _quiet_row(strategy, runs)
            quiet.append(row)
        failed |= wrong
    early = sum(run.requests < 0 for runs in found.values() for run in runs)
    seldom = ", ".join(f"{name}: {count}" for name, count in left_out.items())
    return (
        f"""# Drift: alarms, false and true

{datetime.date.today()}, `make bench-drift`. Requests come from a made world of topics. Each run calibrates on {RECORDS:,} fresh records of three topics (retain {RETAIN:g},
risk {RISK:.0%}) and routes {PERIOD} requests a period, {RATE:.0%} of the accepted ones shadowed; the level, the chance of ever a false
alarm, is {LEVEL:.0%} over all monitors. Calibrations whose outcome was another than the strategy's were drawn anew ({seldom}).

## No drift

{length:,} requests of the topics that were certified. *Bound wrong*: runs whose certified bound on accepted and different
answers, which is itself wrong with chance ≤ {RISK:.0%}, was below the world's truth; an alarm is then no false one.

| strategy | runs | alarms | bound wrong | alarms where the bound is right |
|---|---|---|---|---|
"""
        + "\n".join(quiet)
        + f"""

## Drift

{QUIET:,} such requests, then others. *Requests*: from the change to the alarm, looked at after each period. *Stated*: what the
monitors' own functions say is needed to see this change 9 times in 10 (`requests_to_see`: the label-free one from the
true share of accepted and different answers, the score test by simulating itself); a run that
is given up before that number counts as not within it. *Large*: share of the next
{AFTERWARDS} requests that the router's choice (`leanmodel_serving.router.route.choose`) starts at the large model, before the
change and after the alarm; a cascade starts each at the lean one. {early} runs alarmed before the change and are left out.

| strategy | requests turn | runs | alarms | by label-free / by scores | requests: half of the runs, 9 in 10, most | stated, median | within the stated | large before | large after |
|---|---|---|---|---|---|---|---|---|---|
"""
        + "\n".join(drifted)
        + "\n",
        failed,
    )


def _requests(number: float) -> str:
    return f"{number:,.0f}" if np.isfinite(number) else f"not within {LONGEST:,}"


def _quiet_row(strategy: str, runs: list[Outcome]) -> tuple[str, bool]:
    alarms = sum(bool(run.alarms) for run in runs)
    right = [run for run in runs if run.bound_true]
    false = sum(bool(run.alarms) for run in right)
    wrong = bool(binom.sf(false - 1, len(right), LEVEL) < ALLOWED)
    row = f"| {strategy} | {len(runs)} | {alarms} | {len(runs) - len(right)} | {false}{' **too many**' if wrong else ''} |"
    return row, wrong


def _drifted_row(strategy: str, mix: str, runs: list[Outcome]) -> tuple[str, bool]:
    clean = [run for run in runs if run.requests >= 0]
    seen = [run for run in clean if run.alarms]
    needed = np.array([run.requests if run.alarms else np.inf for run in clean])
    half, most = (np.quantile(needed, share, method="higher") for share in (0.5, 0.9))
    told = [run for run in clean if run.stated is not None]
    # An alarm comes at the end of a period, and the stated number may end within one.
    within = sum(bool(run.alarms) and run.requests < run.stated + PERIOD for run in told if run.stated)
    late = bool(binom.cdf(within, len(told), 0.9) < ALLOWED)
    by = [
        sum(any(name.startswith(kind) for name in run.alarms) for run in seen) for kind in ("label", "score")
    ]
    stated = f"{np.median([run.stated for run in told if run.stated]):,.0f}" if told else "–"
    after = f"{np.mean([run.large_after for run in seen]):.0%}" if seen else "–"
    row = (
        f"| {strategy} | {mix} | {len(clean)} | {len(seen)} | {by[0]} / {by[1]} | {', '.join(map(_requests, (half, most, needed.max())))} | "
        f"{stated} | {within} of {len(told)}{' **too few**' if late else ''} | "
        f"{np.mean([run.large_before for run in clean]):.0%} | {after} |"
    )
    not_large = any(run.large_after != 1.0 for run in seen)
    return row, late or not_large


if __name__ == "__main__":
    sys.exit(main())
