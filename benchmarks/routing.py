"""Strategies and signals on records of real models: what each saves, against random and oracle, and which signals pay.

The records lie in benchmarks/pairs; see the README there for how they came about. Each strategy is calibrated as
`leanmodel calibrate` does it, on two parts, and measured on a third that chose nothing. The result is printed as a page
for docs/results/routing.md.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pairs import PAIRS, Pair

from leanmodel_api.errors import InputError
from leanmodel_api.policy import Interval, PolicyEvaluation
from leanmodel_api.routing_policy import Strategy
from leanmodel_routing import figures
from leanmodel_routing.bootstraps import curve_draws
from leanmodel_routing.intervals import bootstrap_weights, percentile_interval
from leanmodel_routing.parts import Parts, split
from leanmodel_routing.policies import STRATEGIES
from leanmodel_routing.predictors.candidates import LOGPROB_SIGNALS, Candidate
from leanmodel_routing.predictors.fit import fit_candidate, table_confidences
from leanmodel_routing.routing_calibration import RoutingResult, calibrate_routing
from leanmodel_routing.signals import SIGNALS
from leanmodel_routing.table import Floats, Table
from leanmodel_routing.threads import single_threaded

RETAINS, RISK = (0.95, 0.98), 0.1
SHARES = (0.35, 0.35, 0.3)
"""Fit, certify, report: more to report on than in a calibration for use, for narrower intervals."""
HALVES = (0.5, 0.0, 0.5)
"""Of the ablation, which certifies nothing."""
CHOICES: dict[str, tuple[Strategy, ...]] = {
    **{name: (name,) for name in STRATEGIES},
    "auto": tuple(STRATEGIES),
}
EVERYTHING = tuple(SIGNALS)


def main() -> int:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--out", type=Path, help="file for the page; none: standard output alone")
    options = parser.parse_args()
    page = HEAD.format(
        date=datetime.date.today(), shares=" / ".join(f"{share:.0%}" for share in SHARES), risk=RISK
    )
    for pair in PAIRS:
        page += "\n".join(section(pair, options.seed)) + "\n"
    page += TAIL
    print(page)
    if options.out:
        options.out.write_text(page)
    return 0


HEAD = """# Routing on records of real models

{date}, `make bench-routing`. The records are committed ([benchmarks/pairs](../../benchmarks/pairs/README.md)). Calibrated as
`leanmodel calibrate` does it; fit, certify and report have {shares} of the records, and all figures are of the report
part, with 95% intervals. *Random*: as many requests sent to the large model, by lot. *Oracle*: the large model answers
just where it is better. *Saving*: of the dollars that the large model alone would cost, at the prices of the proof. The risk
is {risk:.0%}. A strategy is not offered where the fit part shows no gain of it: for `combined`, no cut on the prompt that saves
lean calls.

"""


TAIL = """## Read it with this

One split of each data set; the promise is judged over many in [promise.md](promise.md). What is certified is cheaper than it
looks by the quality of the report part: a promise of 95% is kept with a margin that its records cost.

**Classifiers** (sms-words, articles-linear) answer in one token, so all signals of log-probs say nearly the same, and length,
finish and shapes (JSON, a number, code) do not vary: they have nothing to tell. Where the models err on different things
(articles-linear) the pair can be better than the large model alone, and two heads, which learn also where the large model
errs, order better than one. The prompt's hashed words pay a little beside the answer, and less without it.

**Questions.** For questions-10-layers the kinds differ more than the answers do, and a prompt shows its kind. So the prompt
alone orders nearly as well as all that the answer tells, and asks no lean model in vain: predictive and combined save where
a cascade, which pays a lean call worth half of a large one for every request, saves nothing. For questions-w4a16 the answer
tells more than the prompt (APGR 0.81 to 0.73), but a lean call costs four fifths of a large one, and who asks both pays
more than is saved: again the prompt decides. The prices are of a machine with other work (see the pairs' page); CPT and
APGR do not depend on them. In both no single signal of the answer comes near all of them together; the mean and the
quantiles of the log-probs are among the worst.
"""


def section(pair: Pair, seed: int) -> list[str]:
    """The lines of one pair."""
    records = pair.records()
    table = Table.of(records, pair.aggregate)
    lean, large = (figures.quality_of(table, quality) for quality in (table.lean, table.large))
    lines = [f"## {pair.name}", "", f"{pair.about} {len(records):,} records; over all of them the large model's quality is "
             f"{large:.4f}, the lean one's {lean:.4f}.", ""]  # fmt: skip
    lines += kinds(table)
    parts = split(records, seed, SHARES)
    for retain in RETAINS:
        lines += [f"### A promise of {retain:.0%}", "", *strategies(pair, parts, retain, seed), ""]
    return lines + ["### Which signals pay", "", *ablation(pair, records, seed), ""]


def kinds(table: Table) -> list[str]:
    """The table of both models' qualities by kind of prompt; nothing where there are no kinds."""
    if not table.groups:
        return []
    lines = ["| prompts | records | large | lean | lean spoils | lean mends |", "|---|---|---|---|---|---|"]
    for name, rows in sorted(table.groups.items()):
        large, lean = table.large[rows], table.lean[rows]
        lines.append(
            f"| {name} | {len(rows):,} | {large.mean():.3f} | {lean.mean():.3f} | {(large > lean).mean():.1%} | "
            f"{(lean > large).mean():.1%} |"
        )
    return [*lines, ""]


def strategies(pair: Pair, parts: Parts, retain: float, seed: int) -> list[str]:
    """The table of strategies at one promise."""
    lines = [
        "| strategy | outcome | to the large model | quality | random | saving | CPT(50) | CPT(80) | APGR |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    shown: PolicyEvaluation | None = None
    for name, among in CHOICES.items():
        try:
            result = calibrate_routing(
                retain=retain,
                confidence=1 - RISK,
                seed=seed,
                parts=parts,
                aggregate=pair.aggregate,
                strategies=among,
            )
        except (
            InputError
        ):  # not offered: no cut on the prompt saves anything, or too few records to learn one
            lines.append(f"| {name} | not offered | | | | | | | |")
            continue
        shown = result.evaluation
        lines.append(_strategy_row(name, result))
    assert shown is not None
    each = (("only lean", shown.baselines.always_lean, "quality_lean"), ("oracle", shown.baselines.oracle, "quality_oracle"),
            ("only large", shown.baselines.always_large, "quality_large"))  # fmt: skip
    for name, one, key in each:
        saving = (
            "–" if not one.cost or not shown.cost_all_large else f"{1 - one.cost / shown.cost_all_large:.0%}"
        )
        lines.append(
            f"| *{name}* | | {one.large_share:.1%} | {_with(one.quality, shown.intervals.get(key))} | | {saving} | | | |"
        )
    return lines


def _strategy_row(name: str, result: RoutingResult) -> str:
    found, policy = result.evaluation, result.policy
    spans = found.intervals
    kind = f" ({policy.kind})" if name == "auto" else ""
    saved = None if found.cost is None or not found.cost_all_large else 1 - found.cost / found.cost_all_large
    cells = [
        name + kind, policy.certificate.outcome, _with(found.large_share, spans.get("large_share"), 1),
        _with(found.quality, spans.get("quality")), _with(found.baselines.random.quality, spans.get("quality_random")),
        _with(saved, spans.get("saving"), 1), _with(found.cpt50, spans.get("cpt50"), 1),
        _with(found.cpt80, spans.get("cpt80"), 1), _with(found.apgr, spans.get("apgr"), 3),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _with(value: float | None, interval: Interval | None, digits: int = 4) -> str:
    """A figure with its interval; a share (digits 1) in percent."""
    if value is None:
        return "–"
    show = (lambda number: f"{number:.1%}") if digits == 1 else (lambda number: f"{number:.{digits}f}")
    return show(value) + ("" if interval is None else f" ({show(interval.low)}–{show(interval.high)})")


# ---------------------------------------------------------------- ablation


@dataclass(frozen=True)
class Tried:
    """A set of signals, judged on the other half: APGR and CPT by bootstrap draw."""

    name: str
    apgr: float
    cpt80: float
    draws: Floats


def ablation(pair: Pair, records: Sequence, seed: int) -> list[str]:  # type: ignore[type-arg]
    """The table of signals: fitted on one half of the records, judged on the other."""
    halves = split(records, seed, HALVES)
    fit, judged = (Table.of(part, pair.aggregate) for part in (halves.fit, (*halves.certify, *halves.report)))
    lean, large = (figures.quality_of(judged, quality) for quality in (judged.lean, judged.large))
    reason = figures.gap_reason(lean, large)
    if reason:
        return [f"None can be told apart: {reason}."]
    harmful = int((judged.large > judged.lean).sum())
    usable = [
        name
        for name in EVERYTHING
        if sum(all(item.has(need) for need in SIGNALS[name].needs) for item in fit.observations)
        >= 0.9 * len(fit)
    ]
    answer = tuple(name for name in usable if name != "prompt-ngrams")
    logprobs = tuple(name for name in LOGPROB_SIGNALS if name in usable)
    sets = {
        "log-probs": (logprobs, "fine"),
        "all that read the answer": (answer, "fine"),
        "all that read the answer, two heads": (answer, "benefit"),
        "all that read the answer, and the prompt, two heads": (tuple(usable), "benefit"),
        **{f"without {name}": (tuple(n for n in answer if n != name), "fine") for name in answer},
        **{f"{name} alone": ((name,), "benefit" if name == "prompt-ngrams" else "fine") for name in usable},
    }
    tried = [_tried(name, *given, fit, judged, seed) for name, given in sets.items()]
    base = tried[1]
    lines = [
        f"Fitted on {len(fit):,} records, judged on {len(judged):,} others, of which the lean model spoils {harmful}. A random "
        f"router's APGR is 0.5; the oracle's here is {_oracle(judged):.3f}. The difference is to all signals that read the "
        "answer, on the same draws.",
        "",
        "| signals | APGR | difference | CPT(80) |",
        "|---|---|---|---|",
    ]
    for one in _alike(tried):
        ahead = percentile_interval(one.draws - base.draws)
        apart = "" if one is base else f"{one.apgr - base.apgr:+.3f} ({ahead.low:+.3f} to {ahead.high:+.3f})"
        lines.append(
            f"| {one.name} | {_with(one.apgr, percentile_interval(one.draws), 3)} | {apart} | {one.cpt80:.1%} |"
        )
    return lines


def _alike(tried: Sequence[Tried]) -> list[Tried]:
    """Sets that come to the same to three digits in one row, after those that say something of their own."""
    found: list[Tried] = []
    for one in tried:
        same = next((item for item in found[2:] if _row(item) == _row(one)), None)
        if same is None:
            found.append(one)
        else:
            found[found.index(same)] = replace(same, name=f"{same.name}; {one.name}")
    return found


def _row(one: Tried) -> tuple[float, ...]:
    span = percentile_interval(one.draws)
    return tuple(round(value, 3) for value in (one.apgr, span.low, span.high, one.cpt80))


@single_threaded
def _tried(name: str, signals: tuple[str, ...], kind: str, fit: Table, judged: Table, seed: int) -> Tried:
    fitted = fit_candidate(Candidate(name, signals, "fine" if kind == "fine" else "benefit"), fit, seed)
    scores = table_confidences(fitted.predictor, judged)
    curve = figures.curve_of(judged, scores)
    drawn = bootstrap_weights(judged.stratum, seed)
    mass = drawn * judged.mass
    # A draw without a gap has no APGR; the same draws fall out for every set of signals.
    shown = mass @ (judged.large - judged.lean) > figures.NO_GAP
    return Tried(
        name,
        figures.apgr(curve),
        figures.cpt(curve, 0.8),
        curve_draws(judged, scores, drawn[shown], mass[shown])["apgr"],
    )


def _oracle(judged: Table) -> float:
    return figures.apgr(figures.curve_of(judged, judged.lean - judged.large))


if __name__ == "__main__":
    sys.exit(main())
