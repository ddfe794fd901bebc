"""Scratch: an encoder of the same family in another size, with random weights and the same tokenizer.

What comes out answers nothing; the Distill that must follow teaches it (small students from a configuration: TinyBERT,
arXiv 1909.10351, whose general stage needs a large corpus; see the technique's page before taking this way).
"""

from __future__ import annotations

from typing import Any

from leanmodel_api.errors import Issue

from ... import memory
from ...classifiers.shapes import FAMILIES
from ...shapes import ModelShape
from ..protocol import Outcome, Place, Task, Work
from .common import FLOAT, EncoderStep, encoder, looked
from .finetune import finish

USUAL = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
KEYS = {"bert": USUAL, "distilbert": ("n_layers", "dim", "hidden_dim", "n_heads"), "albert": USUAL}
"""What a configuration calls layers, widths and heads, by family."""


class EncoderBeginning(EncoderStep):
    """Makes a model of its own sizes."""

    name = "Scratch"

    def issues(self, task: Task) -> list[Issue]:
        """Check the family: others tie more sizes to each other than these."""
        if task.spec.kv_heads is not None:
            found = f"found {task.spec.kv_heads}, and an encoder has as many as heads"
            return [Issue(f"{task.field}.kvHeads", found, "remove it")]
        if encoder(task.shape).family in KEYS:
            return []
        known = ", ".join(FAMILIES[family] for family in KEYS)
        what = f"Scratch of a {task.shape.architecture}: not supported yet"
        return [
            Issue(
                f"{task.field}.type",
                what,
                f"write {{type: Prune, method: Depth}}, or take a model of {known}",
            )
        ]

    def after(self, task: Task) -> ModelShape:
        """The sizes that are asked for."""
        spec = task.spec
        return encoder(task.shape).resized(spec.layers, spec.hidden_size, spec.intermediate_size, spec.heads)

    def memory(self, task: Task) -> int:
        """The model, drawn and written."""
        after = self.after(task)
        return looked(after, memory.PROCESS_BYTES + 2 * FLOAT * after.parameters)

    def work(self, task: Task) -> Work:
        """Drawing and writing."""
        return Work(bytes=12.0 * self.after(task).parameters, seconds=2.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Draw the weights by a fixed seed: another draw is another plan's business, whose training differs anyway."""
        import torch
        from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

        spec, shape = task.spec, encoder(task.shape)
        config: Any = AutoConfig.from_pretrained(
            str(place.source), local_files_only=True, trust_remote_code=False
        )
        sizes = (spec.layers, spec.hidden_size, spec.intermediate_size, spec.heads)
        for name, size in zip(KEYS[shape.family], sizes, strict=True):
            setattr(config, name, size)
        torch.manual_seed(0)
        kind = AutoModelForSequenceClassification if shape.labels else AutoModel
        model = kind.from_config(config, dtype=torch.float32)
        finish(model, place)
        modules = sum(1 for module in model.modules() if not list(module.children()))
        return Outcome(
            modules,
            f"{spec.layers} layers of {spec.hidden_size}, {spec.intermediate_size} neurons, {spec.heads} heads, random",
        )
