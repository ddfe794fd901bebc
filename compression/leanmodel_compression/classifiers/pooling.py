"""How a sentence encoder makes one vector of a text's tokens: read as sentence-transformers stores it, kept in config.json.

Reimers & Gurevych 2019, *Sentence-BERT*, arXiv 1908.10084.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import hf

KEY = "leanmodel_pooling"
"""Entry of our artifacts' config.json."""
MODULES = "modules.json"
STORED = "1_Pooling/config.json"
MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
KNOWN = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Pooling:
    """One vector of many.

    Attributes:
        mode: mean of the real tokens' states, or cls, the first token's.
        normalize: whether the vector is scaled to length 1.
    """

    mode: str
    normalize: bool

    def of(self, states: Any, mask: Any) -> Any:
        """Return the vectors (texts × width) of last hidden states (texts × tokens × width)."""
        import torch

        if self.mode == "cls":
            found = states[:, 0]
        else:
            weight = mask.unsqueeze(-1).to(states.dtype)
            found = (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
        return torch.nn.functional.normalize(found, dim=-1) if self.normalize else found


def with_pooling(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a configuration with what the files beside it say about pooling, where it does not say it itself."""
    if KEY in config or not (folder / MODULES).exists():
        return dict(config)
    return {**config, KEY: _stored(folder)}


def pooling_of(config: Mapping[str, Any]) -> Pooling:
    """Return the pooling of one of our artifacts.

    Raises:
        KeyError: it has none.
    """
    found = config[KEY]
    return Pooling(str(found["mode"]), bool(found["normalize"]))


def _stored(folder: Path) -> dict[str, Any]:
    """Return mode and normalize, or under ``problem`` why they are not to be had."""
    import json

    try:
        modules = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        names = [str(module["type"]).rpartition(".")[2] for module in modules]
        other = [name for name in names if name not in KNOWN]
        if other:
            return {"problem": f"its modules.json names {other[0]}, which is not supported yet"}
        if names[:2] != ["Transformer", "Pooling"]:
            return {
                "problem": f"its modules.json names {', '.join(names) or 'nothing'}, not Transformer and Pooling"
            }
        settings = hf.read_json(folder / STORED)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {"problem": f"its modules.json and 1_Pooling/config.json cannot be read ({error})"}
    chosen = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True]
    modes = [MODES[name] for name in chosen if name in MODES]
    if len(chosen) != 1 or not modes:
        return {
            "problem": f"its pooling is {', '.join(chosen) or 'not said'}, and only mean or cls is supported"
        }
    return {"mode": modes[0], "normalize": "Normalize" in names}
