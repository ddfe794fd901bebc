"""The predictors that calibration chooses among: which signals, and what is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from leanmodel_routing.signals import SIGNALS
from leanmodel_routing.table import Table


@dataclass(frozen=True)
class Candidate:
    """A set of signals and a target: `fine` (one head) or `benefit` (P(lean right) - P(large right))."""

    name: str
    signals: tuple[str, ...]
    kind: Literal["fine", "benefit"]


LOGPROB_SIGNALS = ("min-logprob", "mean-logprob", "logprob-quantiles", "first-tokens", "length")
PROMPT_SIGNAL = "prompt-ngrams"
PROMPT_RECORDS = 400
"""Fit records below which 257 features of the prompt can only be learnt by heart."""
FEW_HARMS = 10
"""Harmful fit records (the large model right, the lean one not) below which several coefficients fit noise.

Ten events a variable is the usual rule for logistic regression (Peduzzi et al., J. Clin. Epidemiol. 49, 1996);
with fewer, the one signal whose direction is known beforehand is all that can be learnt from.
"""
_MOSTLY = 0.9


def candidates_for(fit: Table) -> tuple[Candidate, ...]:
    """The candidates that the fit part's records allow, simplest first.

    A signal is usable when at least 90% of the records carry what it needs; the others then go to the large
    model.
    """
    usable = {name for name, signal in SIGNALS.items() if _coverage(fit, signal.needs) >= _MOSTLY}
    extra = tuple(
        name for name in SIGNALS if name in usable and name not in (*LOGPROB_SIGNALS, PROMPT_SIGNAL)
    )
    found: list[Candidate] = []
    if set(LOGPROB_SIGNALS) <= usable:
        found.append(Candidate("min-logprob", ("min-logprob",), "fine"))
        if int((fit.large > fit.lean).sum()) < FEW_HARMS:
            return tuple(found)
        found.append(Candidate("logprobs", LOGPROB_SIGNALS + extra, "fine"))
        found.append(Candidate("logprobs-benefit", LOGPROB_SIGNALS + extra, "benefit"))
        base: tuple[str, ...] = LOGPROB_SIGNALS + extra
    else:
        base = extra
        if "answer-choice" in usable:
            found.append(Candidate("answer", extra, "fine"))
    if PROMPT_SIGNAL in usable and len(fit) >= PROMPT_RECORDS:
        name = "logprobs+prompt" if base else "prompt"
        found.append(Candidate(name, (*base, PROMPT_SIGNAL), "benefit"))
    elif not found:
        found.append(Candidate("prompt", (PROMPT_SIGNAL,), "fine"))
    return tuple(found)


def prompt_candidates(fit: Table) -> tuple[Candidate, ...]:
    """The candidates that read the prompt alone, and so can decide before anything is generated.

    None below PROMPT_RECORDS: so many features would be learnt by heart, and there is no single one whose
    direction is known beforehand.
    """
    if len(fit) < PROMPT_RECORDS or _coverage(fit, SIGNALS[PROMPT_SIGNAL].needs) < _MOSTLY:
        return ()
    return (Candidate("prompt", (PROMPT_SIGNAL,), "benefit"),)


def _coverage(table: Table, needs: tuple[str, ...]) -> float:
    return sum(all(item.has(need) for need in needs) for item in table.observations) / len(table)
