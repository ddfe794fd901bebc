"""Every step is a file here; the registry finds it by the type that stands in the manifest."""

from __future__ import annotations

from .distill import Distillation
from .fetch import Fetching
from .finetune import Finetuning
from .protocol import Step
from .prune import Pruning
from .quantize import Quantization

REGISTRY: dict[str, Step] = {
    step.name: step for step in (Fetching(), Finetuning(), Pruning(), Distillation(), Quantization())
}
