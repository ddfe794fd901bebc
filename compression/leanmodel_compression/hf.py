"""Models as folders in Hugging Face's layout: loaded in float32, written as bf16 with stable bytes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from leanmodel_api.eight_bits import table_of
from leanmodel_api.low_rank import MODEL_TYPE as LOW_RANK
from leanmodel_api.shared import MODEL_TYPE as SHARED

from . import devices, families, low_rank, memory, shared
from .classifiers import onnx_file

CONFIG = "config.json"
OWN = {LOW_RANK: low_rank, SHARED: shared}
"""Model types of ours, by what they begin with."""
GENERATION_CONFIG = "generation_config.json"
WEIGHTS = "model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
# Tokens that end a turn of a chat, most specific first: some files name another token as the end.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")


def leave_hub() -> None:
    """Ask no hub from now on: what a Job needs has been fetched, and a library that looks for news must not."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    # The client has read the variable when it was imported.
    constants.HF_HUB_OFFLINE = True


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object with sorted keys, so that equal content is equal bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def tokenizer_kind(folder: Path) -> str:
    """Return what kind of tokenizer lies in a folder (``BPE``, ``Unigram`` …), empty where its file does not say."""
    path = folder / "tokenizer.json"
    return str(read_json(path).get("model", {}).get("type") or "") if path.exists() else ""


def beyond(folder: Path, size: int) -> list[str]:
    """Return the tokens of a folder's tokenizer whose numbers a table of ``size`` rows does not have.

    Tokens that were added to the vocabulary by name are left out: some families name ones there (Gemma's of images)
    that their text models cannot read, and no text becomes them.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        return []
    numbers, added = _numbers(read_json(path))
    return sorted(word for word, number in numbers.items() if number >= size and word not in added)


def odd_token(folder: Path, other: Path) -> str | None:
    """Return a token that one tokenizer numbers otherwise than the other, or has alone; None where they agree.

    Tokens that were added by name count where both have them: writing a model may add some that no text becomes. A folder
    without ``tokenizer.json`` agrees with every other, as nothing is known of it.
    """
    paths = [one / "tokenizer.json" for one in (folder, other)]
    if not all(path.exists() for path in paths):
        return None
    (mine, added), (told, also) = (_numbers(read_json(path)) for path in paths)
    alone = (added.keys() - also.keys() - told.keys()) | (also.keys() - added.keys() - mine.keys())
    odd = {word for word, _ in mine.items() ^ told.items()} - alone
    odd |= {word for word in added.keys() & also.keys() if added[word] != also[word]}
    return min(odd, default=None)


def _numbers(tokenizer: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the numbers of what the tokenizer learned, and of what was added to it by name."""
    words = tokenizer.get("model", {}).get("vocab") or {}
    numbers = words if isinstance(words, dict) else {word: at for at, (word, *_) in enumerate(words)}
    return numbers, {entry["content"]: int(entry["id"]) for entry in tokenizer.get("added_tokens") or ()}


def know_own(folder: Path) -> None:
    """Tell transformers of our own classes where a folder's configuration asks for one."""
    path = folder / CONFIG
    kind = str(read_json(path).get("model_type", "")) if path.exists() else ""
    for prefix, module in OWN.items():
        if kind.startswith(prefix):
            module.register()


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a model folder; code that came with it is never run."""
    from transformers import AutoTokenizer

    know_own(folder)
    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def load_model(folder: Path, dtype: str = "float32", device: str | None = None) -> Any:
    """Return the causal language model of a folder in ``dtype``, in evaluation mode, without gradients.

    Quantised weights are expanded, so that a W8A8 model runs where no integer kernels are.

    Args:
        folder: with configuration and weights.
        dtype: torch's name of the weights' type.
        device: where the model goes. Default: the Job's first device.
    """
    import torch
    from transformers import AutoModelForCausalLM

    know_own(folder)
    more: dict[str, Any] = {}
    if read_json(folder / CONFIG).get("quantization_config"):
        from transformers.utils.quantization_config import CompressedTensorsConfig

        more["quantization_config"] = CompressedTensorsConfig(run_compressed=False)
    with memory.small_heap():
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **more,
        )
        if not more:
            require_all(info)
        elif table_of(read_json(folder / CONFIG)["quantization_config"]) and model.config.tie_word_embeddings:
            # The head was tied to the table's integers, before these were expanded.
            replace_weight(model.get_output_embeddings(), model.get_input_embeddings().weight)
        return devices.placed(frozen(straightened(model)), device)


def replace_weight(module: Any, weight: Any) -> None:
    """Give a module another weight; where the old one is not taken away first, compressed-tensors copies into it."""
    del module.weight
    module.weight = weight


def straightened(model: Any) -> Any:
    """Put ordinary linear layers, rows × columns, where a model has transposed ones (GPT-2's Conv1D).

    Every step then sees the same kind of layer; :func:`save_model` turns them back.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            columns, rows = module.weight.shape
            made = torch.nn.Linear(columns, rows, device="meta")
            made.weight = torch.nn.Parameter(module.weight.T.contiguous(), requires_grad=False)
            made.bias = module.bias
            model.set_submodule(name, made)
    return model


def turned_back(model: Any) -> Any:
    """Undo :func:`straightened`, so that the model is stored as its family's users know it."""
    import torch
    from transformers.pytorch_utils import Conv1D

    family = families.of_model(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and family.turned(f"{name}.weight"):
            with torch.device("meta"):
                made = Conv1D(module.out_features, module.in_features)
            made.weight = torch.nn.Parameter(module.weight.T.contiguous(), requires_grad=False)
            made.bias = module.bias
            model.set_submodule(name, made)
    return model


def frozen(model: Any) -> Any:
    """Return a loaded model in evaluation mode, without gradients, its weights in memory of their own."""
    import torch

    for parameter in model.parameters():
        parameter.requires_grad_(False)
        # Own memory: results must not depend on where in a mapped file a tensor happens to begin.
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    model.eval()
    return model


class MissingWeightsError(ValueError):
    """Weights that the configuration promises are not in the files."""


def require_all(info: dict[str, Any]) -> None:
    """Refuse a model with missing weights, which transformers would fill with random numbers.

    Raises:
        MissingWeightsError: names some of them.
    """
    missing = sorted(str(name) for name in info.get("missing_keys", ()))
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise MissingWeightsError(f"weights are missing: {some}")


def save_model(model: Any, folder: Path) -> None:
    """Write a float model as bf16: one safetensors file, configuration without paths, versions or dates.

    The model is on the processor afterwards.
    """
    import torch

    turned_back(model.to(devices.CPU, torch.bfloat16))
    model.save_pretrained(str(folder), max_shard_size="1000GB", safe_serialization=True)
    tidy(folder)


def tidy(folder: Path, dtype: str = "bfloat16") -> None:
    """Make a saved folder's bytes a function of the model alone; file modes too."""
    for name in (CONFIG, GENERATION_CONFIG):
        path = folder / name
        if not path.exists():
            continue
        value = {
            key: entry
            for key, entry in read_json(path).items()
            if not key.startswith("_") and key not in ("transformers_version", "torch_dtype", "auto_map")
        }
        if name == CONFIG:
            value["dtype"] = dtype
        write_json(path, value)
    (folder / "recipe.yaml").unlink(missing_ok=True)
    for path in folder.iterdir():
        path.chmod(0o644)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files and the chat template byte for byte."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


def copy_generation_config(source: Path, target: Path) -> None:
    """Copy the generation configuration, where there is one."""
    if (source / GENERATION_CONFIG).exists():
        shutil.copyfile(source / GENERATION_CONFIG, target / GENERATION_CONFIG)


def end_token(template: str, vocabulary: dict[str, int], current: str | None) -> str | None:
    """Return the token that ends an answer: the chat template's end of turn where it has one."""
    for token in TURN_ENDS:
        if token in template and token in vocabulary:
            return token
    return current


def stored_bytes(folder: Path) -> int:
    """Return the bytes of the weights as they are served: the exported file's where there is one."""
    if (folder / onnx_file.NAME).exists():
        return (folder / onnx_file.NAME).stat().st_size
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def stored_parameters(folder: Path) -> int:
    """Return the parameters that the stored tensors stand for, scales and shapes not counted."""
    from safetensors import safe_open

    if (folder / onnx_file.NAME).exists():
        return onnx_file.parameters(folder / onnx_file.NAME)
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                if name.endswith((".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx")):
                    continue
                size = 1
                for width in file.get_slice(name).get_shape():
                    size *= int(width)
                # Packed integers: the true shape lies beside them.
                if name.endswith(".weight_packed"):
                    shape = file.get_tensor(name.removesuffix("_packed") + "_shape")
                    size = int(shape.prod())
                count += size
    return count


def as_stored(scale: Any) -> Any:
    """Return scales as they will read after storing in bf16, in their own precision."""
    import torch

    return scale.to(torch.bfloat16).to(scale.dtype)
