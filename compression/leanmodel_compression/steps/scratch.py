"""Scratch: a decoder of the same family in another size, with random weights and the same tokenizer.

What comes out says nothing; the Distill that must follow teaches it (a small student from a configuration: DistilGPT-2's
and TinyStories' way, Eldan and Li 2023, arXiv 2305.07759; see the technique's page before taking it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from leanmodel_api.errors import Issue

from .. import families, hf, memory
from ..shapes import ModelShape
from .protocol import Outcome, Place, Task, WithoutRows, Work, checked
from .prune import PER_LAYER

HEAD_WIDTHS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)
"""Widths of a head that vLLM has attention for on every device."""


class Beginning(WithoutRows):
    """Makes a model of its own sizes."""

    name = "Scratch"
    version = 1
    libraries = ("torch", "transformers")
    teaches = False

    def issues(self, task: Task) -> list[Issue]:
        """Check that an engine has attention for heads of this width, and that nothing hangs on the old one."""
        spec, field = task.spec, task.field
        width = spec.hidden_size // spec.heads
        found = []
        if width not in HEAD_WIDTHS:
            fits = [heads for heads in range(1, 257) if spec.hidden_size / heads in HEAD_WIDTHS]
            advice = (
                f"write one of {', '.join(map(str, fits))}" if fits else "write a hiddenSize that 64 divides"
            )
            words = f"{spec.heads} heads of {width} of hiddenSize {spec.hidden_size}, a width that vLLM has no attention for"
            found.append(Issue(f"{field}.heads", words, advice))
        if not task.shape.decoder.grouped and spec.kv_heads not in (None, spec.heads):
            words = f"found {spec.kv_heads}, and a {task.shape.decoder.name} has as many as heads"
            found.append(Issue(f"{field}.kvHeads", words, "remove it"))
        scaled = next((extra for extra in task.shape.extras if extra.startswith("positions")), None)
        if scaled is not None:
            words = f"Scratch of a model with {scaled}, which fit its own heads: not supported yet"
            found.append(Issue(f"{field}.type", words, "write {type: Prune, method: Depth}"))
        return found

    def after(self, task: Task) -> ModelShape:
        """The sizes that are asked for."""
        spec = task.spec
        return replace(
            task.shape,
            layers=spec.layers,
            hidden=spec.hidden_size,
            intermediate=spec.intermediate_size,
            heads=spec.heads,
            kv_heads=spec.kv_heads or spec.heads,
            head_dim=spec.hidden_size // spec.heads,
        )

    def memory(self, task: Task) -> int:
        """The model, drawn in float32 and written in bf16."""
        after = self.after(task)
        return checked(task, after, memory.loaded_bytes(after) + 2 * after.parameters)

    def disk(self, task: Task) -> int:
        """The artifact in bf16."""
        return 2 * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """Drawing and writing."""
        return Work(bytes=12.0 * self.after(task).parameters, seconds=2.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Draw the weights by a fixed seed: another draw is another plan's business, whose training differs anyway."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        spec, after = task.spec, self.after(task)
        hf.write_json(place.target / hf.CONFIG, resized(hf.read_json(place.source / hf.CONFIG), after))
        config: Any = AutoConfig.from_pretrained(
            str(place.target), local_files_only=True, trust_remote_code=False
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        modules = sum(1 for module in model.modules() if not list(module.children()))
        hf.save_model(model, place.target)
        hf.copy_generation_config(place.source, place.target)
        hf.copy_tokenizer(place.source, place.target)
        hf.tidy(place.target)
        sizes = f"{spec.layers} layers of {spec.hidden_size}, {spec.intermediate_size} neurons"
        return Outcome(modules, f"{sizes}, {after.heads} heads, {after.kv_heads} of keys and values, random")


def resized(config: Mapping[str, Any], shape: ModelShape) -> dict[str, Any]:
    """Return a configuration of the same family with the sizes of a shape; its lists by layer begin again where they end."""
    family, new = families.of_config(config), dict(config)
    sizes = {
        "num_hidden_layers": shape.layers, "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
    }  # fmt: skip
    new |= {family.key(name): size for name, size in sizes.items()}
    if family.grouped:
        new["num_key_value_heads"] = shape.kv_heads
    if "head_dim" in config:
        new["head_dim"] = shape.head_dim
    # Gemma's softmax is scaled by this in the place of the width of a head.
    if "query_pre_attn_scalar" in config:
        new["query_pre_attn_scalar"] = shape.head_dim
    if isinstance(config.get("max_window_layers"), int):
        new["max_window_layers"] = min(config["max_window_layers"], shape.layers)
    for name in PER_LAYER:
        value = config.get(name)
        if isinstance(value, list) and value:
            new[name] = [value[index % len(value)] for index in range(shape.layers)]
    return new
