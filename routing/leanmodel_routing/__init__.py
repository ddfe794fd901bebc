"""Routing: signals, predictors, certificates and figures. Pure arithmetic; the same code calibrates and
decides.

Names are loaded when first used, so that the router, which only decides, imports neither numpy nor
scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leanmodel_routing.calibration import CalibrationResult, calibrate
    from leanmodel_routing.decide import Decider, RequestFacts, prompt_scope
    from leanmodel_routing.evaluate import evaluate_policy
    from leanmodel_routing.intervals import bootstrap_interval, wilson_interval
    from leanmodel_routing.io import parse_records, read_policy, read_records
    from leanmodel_routing.parts import Parts, split

_HOMES = {
    "CalibrationResult": "calibration",
    "Decider": "decide",
    "Parts": "parts",
    "RequestFacts": "decide",
    "bootstrap_interval": "intervals",
    "calibrate": "calibration",
    "evaluate_policy": "evaluate",
    "parse_records": "io",
    "prompt_scope": "decide",
    "read_policy": "io",
    "read_records": "io",
    "split": "parts",
    "wilson_interval": "intervals",
}

__all__ = [
    "CalibrationResult",
    "Decider",
    "Parts",
    "RequestFacts",
    "bootstrap_interval",
    "calibrate",
    "evaluate_policy",
    "parse_records",
    "prompt_scope",
    "read_policy",
    "read_records",
    "split",
    "wilson_interval",
]


def __getattr__(name: str) -> Any:
    """The public name `name`, imported from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
