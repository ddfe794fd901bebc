"""Every step that takes long enough to be killed inside, each as a plan of its own, small enough to be run many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leanmodel_api.plan import CompressPlan, CompressResult

LAYERS = 4
LESS: dict[str, Any] = {"maxExamples": 48, "epochs": "2", "batchSize": 8, "checkpointSteps": 2}
SEEN: dict[str, Any] = {"samples": 24, "maxLength": 128}
ROUNDED = {"type": "Quantize", "scheme": "W4A16", "groupSize": 64}


def first_layers(fetch: CompressPlan, fetched: CompressResult) -> CompressPlan:
    """Return the plan that cuts the model which all steps start from out of the fetched one."""
    return _after(
        fetch, fetched, {"type": "Prune", "method": "Depth", "keepLayers": LAYERS, "selection": "First"}
    )


def _after(start: CompressPlan, base: CompressResult, *steps: dict[str, Any]) -> CompressPlan:
    known = start.model_dump(by_alias=True, exclude_none=True, exclude={"source", "finetune", "steps"})
    both = {"role": "Lean", "base": base.artifact, "teacher": base.artifact}
    return CompressPlan.model_validate({**known, **both, "steps": list(steps)})


def _step(
    kind: str, *more: dict[str, Any], **fields: Any
) -> Callable[[CompressPlan, CompressResult], CompressPlan]:
    return lambda start, base: _after(start, base, {"type": kind, **fields}, *more)


def _quantize(
    algorithm: str, scheme: str, **more: Any
) -> Callable[[CompressPlan, CompressResult], CompressPlan]:
    return _step("Quantize", algorithm=algorithm, scheme=scheme, **SEEN, **more)


LONG: dict[str, Callable[[CompressPlan, CompressResult], CompressPlan]] = {
    "distill": _step("Distill", **LESS),
    "heal": _step("Heal", **LESS),
    "heal by LoRA": _step("Heal", method="LoRA", **LESS),
    "heal with pruneTo": _step("Heal", pruneTo="0.5", **LESS),
    "heal with pruneTo by Movement": _step("Heal", pruneTo="0.5", pruneBy="Movement", **LESS),
    "heal aware of 4 bits": _step("Heal", ROUNDED, quantizationAware="W4A16", groupSize=64, **LESS),
    "GPTQ": _quantize("GPTQ", "W4A16", groupSize=64),
    "AWQ": _quantize("AWQ", "W4A16", groupSize=64),
    "SmoothQuant": _quantize("SmoothQuant", "W8A8"),
    "SparseGPT": _step("Prune", method="SparseGPT", structure="2:4", **SEEN),
    "Wanda": _step("Prune", method="Wanda", structure="2:4", **SEEN),
    "neurons": _step("Prune", method="Neurons", ratio="0.25", **SEEN),
    "heads": _step("Prune", method="Heads", ratio="0.34", **SEEN),
    "width": _step("Prune", method="Width", ratio="0.125", **SEEN),
    "low rank": _step("Factorize", ratio="0.2", **SEEN),
}
"""By the name in the table: from the quickstart's fetching plan and the model to start from to the step's plan."""
