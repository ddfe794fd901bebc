"""Signals: one file each, entered here. To add one, add a file, a line and a test."""

from __future__ import annotations

from collections.abc import Sequence

from leanmodel_api.policy import SignalSpec
from leanmodel_routing.observation import Observation
from leanmodel_routing.signals.answer_choice import AnswerChoice
from leanmodel_routing.signals.base import Params, Signal
from leanmodel_routing.signals.closed_code import ClosedCode
from leanmodel_routing.signals.entropy import Entropy
from leanmodel_routing.signals.finish import Finish
from leanmodel_routing.signals.first_tokens import FirstTokens
from leanmodel_routing.signals.length import Length
from leanmodel_routing.signals.margin import Margin
from leanmodel_routing.signals.mean_logprob import MeanLogprob
from leanmodel_routing.signals.min_logprob import MinLogprob
from leanmodel_routing.signals.prompt_ngrams import PromptNgrams
from leanmodel_routing.signals.quantiles import LogprobQuantiles
from leanmodel_routing.signals.valid_json import ValidJson
from leanmodel_routing.signals.valid_number import ValidNumber
from leanmodel_routing.signals.valid_schema import ValidSchema

_ALL: tuple[Signal, ...] = (
    MinLogprob(),
    MeanLogprob(),
    LogprobQuantiles(),
    FirstTokens(),
    Margin(),
    Entropy(),
    Length(),
    Finish(),
    AnswerChoice(),
    ValidJson(),
    ValidNumber(),
    ValidSchema(),
    ClosedCode(),
    PromptNgrams(),
)
SIGNALS: dict[str, Signal] = {signal.name: signal for signal in _ALL}
"""Every signal by its name."""


def features(specs: Sequence[SignalSpec], observation: Observation) -> list[float] | None:
    """The features of one observation in the specs' order, or None where something that a signal needs is
    missing.

    Raises KeyError for a signal that is not registered (a policy of a newer version).
    """
    found: list[float] = []
    for spec in specs:
        signal = SIGNALS[spec.name]
        if not all(observation.has(need) for need in signal.needs):
            return None
        found.extend(signal.values(observation, spec.params))
    return found


__all__ = ["SIGNALS", "Observation", "Params", "Signal", "features"]
