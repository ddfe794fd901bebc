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
    from leanmodel_routing.decide import Decider, First, RequestFacts, prompt_scope
    from leanmodel_routing.evaluate import evaluate_policy
    from leanmodel_routing.intervals import bootstrap_interval, wilson_interval
    from leanmodel_routing.io import parse_policy, parse_records, read_policy, read_records
    from leanmodel_routing.monitors import Watch
    from leanmodel_routing.parts import Parts, split
    from leanmodel_routing.routing_calibration import RoutingResult, calibrate_routing

_HOMES = {
    "CalibrationResult": "calibration",
    "Decider": "decide",
    "First": "decide",
    "Parts": "parts",
    "RequestFacts": "decide",
    "RoutingResult": "routing_calibration",
    "Watch": "monitors",
    "bootstrap_interval": "intervals",
    "calibrate": "calibration",
    "calibrate_routing": "routing_calibration",
    "evaluate_policy": "evaluate",
    "parse_policy": "io",
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
    "First",
    "Parts",
    "RequestFacts",
    "RoutingResult",
    "Watch",
    "bootstrap_interval",
    "calibrate",
    "calibrate_routing",
    "evaluate_policy",
    "parse_policy",
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
