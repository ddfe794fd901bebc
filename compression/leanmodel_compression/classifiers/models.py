"""Encoders as folders in Hugging Face's layout: loaded and stored in float32, as their engine computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import devices, hf

# An encoder that was stored without it gets a pooler of fresh weights: fine-tuning trains it with the head.
FRESH = ("pooler.",)


def load(folder: Path, device: str | None = None) -> Any:
    """Return the classifier of a folder in evaluation mode, without gradients.

    Args:
        folder: with configuration and weights.
        device: where the model goes. Default: the Job's first device.

    Raises:
        MissingWeightsError: weights that the configuration promises are not there.
    """
    from transformers import AutoModelForSequenceClassification

    model, info = AutoModelForSequenceClassification.from_pretrained(str(folder), **_how())
    hf.require_all(info)
    return devices.placed(hf.frozen(model), device)


def load_base(folder: Path, device: str | None = None) -> Any:
    """Return the encoder of a folder without a head.

    Args:
        folder: with configuration and weights.
        device: where the model goes. Default: the Job's first device.

    Raises:
        MissingWeightsError: weights are missing (a pooler may be).
    """
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    model, info = AutoModel.from_pretrained(str(folder), **_how())
    hf.require_all({"missing_keys": [name for name in info["missing_keys"] if not _fresh(name)]})
    return devices.placed(hf.frozen(model), device)


def load_with_head(folder: Path, labels: Sequence[str], seed: int) -> Any:
    """Return the classifier of a folder with a head for these labels.

    A head that has just these labels already is kept; any other is made anew: normal weights, drawn by the seed.

    Raises:
        MissingWeightsError: weights of the encoder itself are missing.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    from .shapes import encoder_shape

    if encoder_shape(hf.read_json(folder / hf.CONFIG)).labels == tuple(labels):
        return load(folder)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: at for at, name in enumerate(labels)}}
    torch.manual_seed(seed)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        str(folder), num_labels=len(labels), ignore_mismatched_sizes=True, **names, **_how()
    )
    base = model.base_model_prefix + "."
    lost = [name for name in info["missing_keys"] if name.startswith(base) and not _fresh(name)]
    hf.require_all({"missing_keys": lost})
    model = hf.frozen(model)
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if name.startswith(base):
            continue
        if name.endswith(".weight"):
            parameter.data.normal_(0.0, float(model.config.initializer_range), generator=draw)
        else:
            parameter.data.zero_()
    return devices.placed(model)


def _how() -> dict[str, Any]:
    import torch

    return {
        "dtype": torch.float32, "trust_remote_code": False, "local_files_only": True, "use_safetensors": True,
        "output_loading_info": True,
    }  # fmt: skip


def _fresh(name: str) -> bool:
    return any(mark in f"{name}." for mark in FRESH)


def save(model: Any, folder: Path) -> None:
    """Write a model in float32: one safetensors file, configuration without paths, versions or dates.

    The model is on the processor afterwards.
    """
    model.to(devices.CPU).save_pretrained(str(folder), max_shard_size="1000GB")
    hf.tidy(folder, "float32")


def collate(
    rows: Sequence[Any], part: Sequence[int], device: Any = devices.CPU, pad: int = 0
) -> tuple[Any, Any, Any]:
    """Return a micro-batch: ids and attention mask (rows × width), and the label of each row.

    Args:
        rows: with their label as the last id (:class:`~leanmodel_compression.batches.Labelled`).
        part: indices of the rows.
        device: where the tensors go: the model's.
        pad: any token: the mask hides it.
    """
    import torch

    width = max(rows[index].first for index in part)
    ids = torch.full((len(part), width), pad, dtype=torch.long)
    mask = torch.zeros((len(part), width), dtype=torch.long)
    for line, index in enumerate(part):
        size = rows[index].first
        ids[line, :size] = torch.tensor(rows[index].ids[:size], dtype=torch.long)
        mask[line, :size] = 1
    labels = torch.tensor([rows[index].ids[-1] for index in part], dtype=torch.long)
    return ids.to(device), mask.to(device), labels.to(device)
