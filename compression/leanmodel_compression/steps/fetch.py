"""Fetch: a source's bytes, already verified in the store, become a bf16 model in Hugging Face's layout.

GGUF weights are expanded (transformers reads them through the ``gguf`` package); safetensors are cast to
bf16; a model that is quantised already is taken as it is, to be served but not worked on.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanmodel_api.errors import Issue

from .. import devices, hf, memory
from ..classifiers.pooling import with_pooling
from ..classifiers.shapes import any_shape
from ..shapes import ModelShape, from_gguf
from .protocol import Outcome, Place, StepError, Task, WithoutRows, Work


class Fetching(WithoutRows):
    """Turns fetched files into the first artifact."""

    name = "Fetch"
    version = 1
    libraries = ("transformers", "gguf", "tokenizers")
    teaches = False

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All that matters is the bytes that come in."""
        return {}

    def issues(self, task: Task) -> list[Issue]:
        """Nothing is wrong with what could be read."""
        return []

    def after(self, task: Task) -> ModelShape:
        """The model stays as it is."""
        return task.shape

    def memory(self, task: Task) -> int:
        """Expanding holds the weights in float32 while one more copy is made."""
        return memory.PROCESS_BYTES + 2 * memory.weights_bytes(task.shape)

    def disk(self, task: Task) -> int:
        """The artifact in bf16."""
        return 2 * task.shape.parameters

    def work(self, task: Task) -> Work:
        """Reading, expanding and writing; transformers takes seconds to get going."""
        return Work(bytes=30.0 * task.shape.parameters, seconds=6.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Write the model, its configuration and its tokenizer into the target folder."""
        place.progress(0, 3, "reading weights")
        gguf = find_gguf(place.source)
        if gguf is None and task.shape.quantised:
            return keep(place, task.shape)
        try:
            if gguf is not None:
                model, tokenizer = load_gguf(gguf)
                detail = f"GGUF {gguf.name} expanded to bf16"
            else:
                model, tokenizer = (
                    hf.load_model(place.source, "bfloat16", devices.CPU),
                    hf.load_tokenizer(place.source),
                )
                detail = "safetensors as bf16"
        except hf.MissingWeightsError as error:
            raise StepError(Issue(task.field, str(error), "fetch or export the whole model")) from error
        place.progress(1, 3, "writing bf16")
        set_end(model, tokenizer, task.field)
        modules = sum(1 for module in model.modules() if not list(module.children()))
        hf.save_model(model, place.target)
        place.progress(2, 3, "writing the tokenizer")
        tokenizer.save_pretrained(str(place.target))
        hf.tidy(place.target)
        place.progress(3, 3, "")
        return Outcome(modules, detail)


def find_gguf(folder: Path) -> Path | None:
    """Return the GGUF file of a fetched source (or of a path that is one), or None when it holds safetensors."""
    if folder.is_file():
        return folder
    return next(iter(sorted(folder.rglob("*.gguf"))), None)


def read_shape(folder: Path, field: str) -> ModelShape:
    """Return the shape of a fetched source from its configuration or its GGUF header; no weights are read.

    Raises:
        StepError: the configuration lacks what a model has, or a GGUF file holds an encoder.
    """
    gguf = find_gguf(folder)
    try:
        if gguf is None:
            config = hf.read_json(folder / hf.CONFIG)
            refuse_code(config, field)
            return any_shape(with_pooling(config, folder))
        return _gguf_shape(gguf, field)
    except (KeyError, ValueError, OSError) as error:
        raise StepError(
            Issue(
                field, f"the model's configuration cannot be read ({error})", "name a causal language model"
            )
        ) from error


def refuse_code(config: Mapping[str, Any], field: str) -> None:
    """Refuse a model that only code of its own can build: such code is never fetched and never run.

    Raises:
        StepError: it brings code (``auto_map``), and transformers has no class for its type.
    """
    from transformers import CONFIG_MAPPING

    kind = str(config.get("model_type", ""))
    if config.get("auto_map") and kind not in CONFIG_MAPPING and not kind.startswith(tuple(hf.OWN)):
        found = f"the model's type {kind!r} is unknown to transformers, and the code that came with it is never run"
        raise StepError(Issue(field, found, "name a model that transformers builds by itself"))


def _gguf_shape(path: Path, field: str) -> ModelShape:
    from gguf import GGUFReader

    reader = GGUFReader(str(path))
    family = str(reader.fields["general.architecture"].contents())
    if "bert" in family:
        found = f"{path.name} is an encoder as GGUF ({family}), and encoders are read from safetensors alone"
        raise StepError(Issue(field, found, "name the safetensors that it was made of"))
    fields: dict[str, Any] = {}
    for key, entry in reader.fields.items():
        # Arrays of tokens and merges are long; only their lengths matter here.
        fields[key] = len(entry.data) if key.startswith("tokenizer.ggml.tok") else entry.contents()
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    return from_gguf(fields, tied)


def load_gguf(path: Path) -> tuple[Any, Any]:
    """Return the expanded model (bf16) and the tokenizer of a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **where)
    # Expanded in float32 and rounded once: that is how the published figures were made.
    model, info = AutoModelForCausalLM.from_pretrained(
        str(path.parent), dtype=torch.float32, output_loading_info=True, **where
    )
    hf.require_all(info)
    # transformers would otherwise refuse to save what it takes for a quantised model.
    model.hf_quantizer = None
    model.is_quantized = False
    for holder, name in ((model, "quantization_method"), (model.config, "quantization_config")):
        if name in vars(holder):
            delattr(holder, name)
    model.config.architectures = [type(model).__name__]
    return model, tokenizer


def set_end(model: Any, tokenizer: Any, field: str) -> None:
    """Make the token that ends a turn the one that ends generation, in tokenizer and configuration alike.

    Raises:
        StepError: the model names no end token at all.
    """
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    end = hf.end_token(template, tokenizer.get_vocab(), tokenizer.eos_token)
    if end is None:
        raise StepError(
            Issue(field, "the tokenizer names no end token", "set eos_token in tokenizer_config.json")
        )
    tokenizer.eos_token = end
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = end
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def keep(place: Place, shape: ModelShape) -> Outcome:
    """Take a quantised model as it is, file by file."""
    for path in sorted(place.source.iterdir()):
        if path.is_file() and path.suffix in (".safetensors", ".json", ".jinja", ".txt", ".model"):
            shutil.copyfile(path, place.target / path.name)
    return Outcome(1, f"taken as it is ({shape.quantised})")
