"""Which files of a source make up the model: one set of weights, its configuration, its tokenizer.

Pure: it sees names (and, through a callback, the shards that an index names), never the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from leanmodel_api.errors import InputError, one

from . import names
from .formats import pickles

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")

BESIDE = frozenset(
    {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
     "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model",
     "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json", "quantize_config.json",
     "recipe.yaml", "modules.json"}
)  # fmt: skip
"""Files taken along with safetensors weights; anything else (above all code) stays where it is."""

POOLING = "1_Pooling/config.json"
"""How a sentence encoder makes one vector of a text's tokens, as sentence-transformers stores it."""

TOKENIZERS: tuple[frozenset[str], ...] = (
    frozenset({"tokenizer.json"}), frozenset({"tokenizer.model"}), frozenset({"spiece.model"}),
    frozenset({"sentencepiece.bpe.model"}), frozenset({"vocab.json", "merges.txt"}), frozenset({"vocab.txt"}),
)  # fmt: skip
"""Any one of these sets is enough to build a tokenizer from."""

Shards = Callable[[str], Iterable[str]]
"""Takes the name of an index file, returns the names of the shards in it."""


@dataclass(frozen=True)
class Choice:
    """What is taken from a source.

    Attributes:
        names: names inside the source, sorted.
        folder: the folder (inside the source) that they are taken relative to, '' for the top.
    """

    names: tuple[str, ...]
    folder: str

    def target(self, name: str) -> str:
        """Return the name that a chosen file gets in the artifact."""
        return name[len(self.folder) + 1 :] if self.folder else name


def choose_data(listing: Iterable[str], path: str | None, field: str) -> Choice:
    """Return the one data file of a source.

    Raises:
        InputError: the path is not there, or there is none and several files are.
    """
    found = sorted(listing)
    if path is not None:
        wanted = _checked(path, field)
        if wanted not in found:
            raise _absent(wanted, found, field)
        return Choice((wanted,), names.parent(wanted))
    if len(found) != 1:
        raise one(
            InputError, f"{field}.path", f"not set, and the source holds {len(found)} files{_some(found)}",
            "name the file in `path`",
        )  # fmt: skip
    return Choice((found[0],), names.parent(found[0]))


def choose_model(listing: Iterable[str], path: str | None, shards: Shards, field: str) -> Choice:
    """Return the files of the one model in a source.

    Args:
        listing: names of all files in the source.
        path: ``source.path``: a GGUF file, a safetensors file, or a folder; None for the whole source.
        shards: reads the names of the shards from an index file.
        field: the manifest's field of the source, such as ``spec.large.source``.

    Raises:
        InputError: no weights, several sets of weights, only pickles, or no configuration or tokenizer.
    """
    found = sorted(listing)
    scope = found
    if path is not None:
        wanted = _checked(path, field)
        if wanted in found:
            return _one_file(wanted, found, shards, field)
        scope = [name for name in found if wanted == "" or name.startswith(wanted + "/")]
        if not scope:
            raise _absent(wanted, found, field)
    sets = _sets(scope)
    if not sets:
        raise _no_weights(scope, field)
    if len(sets) > 1:
        raise one(
            InputError, f"{field}.path", f"the source holds {len(sets)} sets of weights{_some(sets)}",
            "name one of them in `path`",
        )  # fmt: skip
    return _one_file(sets[0], found, shards, field)


def _sets(scope: list[str]) -> list[str]:
    """Return one name per set of weights: each GGUF file, and per folder of safetensors its main file."""
    sets = [name for name in scope if name.lower().endswith(".gguf")]
    folders: dict[str, list[str]] = {}
    for name in scope:
        if name.lower().endswith(".safetensors") or names.base(name) == INDEX:
            folders.setdefault(names.parent(name), []).append(name)
    for folder, members in folders.items():
        mains = [f"{folder}/{main}" if folder else main for main in (INDEX, SINGLE)]
        main = next((name for name in mains if name in scope), None)
        sets += [main] if main is not None else members
    return sorted(sets)


def _one_file(wanted: str, found: list[str], shards: Shards, field: str) -> Choice:
    """Return the set of weights that ``wanted`` (a file of the source) belongs to."""
    folder = names.parent(wanted)
    if wanted.lower().endswith(".gguf"):
        if _SHARD.search(wanted):
            raise one(
                InputError, f"{field}.path", f"{wanted} is one of several parts of a split GGUF file",
                "join the parts into one file first (`llama-gguf-split --merge`)",
            )  # fmt: skip
        return Choice((wanted,), folder)
    if names.base(wanted) == INDEX:
        weights = [f"{folder}/{shard}" if folder else shard for shard in shards(wanted)]
        for shard in weights:
            if names.fault(shard) or names.parent(shard) != folder:
                raise one(
                    InputError, field, f"{wanted} names {shard!r}, which is outside its folder",
                    "export the weights again",
                )  # fmt: skip
        if not weights:
            raise one(InputError, field, f"{wanted} names no shards", "export the weights again")
        if missing := sorted(set(weights) - set(found)):
            raise one(
                InputError, field, f"{wanted} names shards that are missing{_some(missing)}",
                "fetch the whole model",
            )  # fmt: skip
        weights = sorted({*weights, wanted})
    elif wanted.lower().endswith(".safetensors"):
        weights = [wanted]
    else:
        raise _no_weights([wanted], field)
    beside = [name for name in found if names.parent(name) == folder and names.base(name) in BESIDE]
    _complete(wanted, {names.base(name) for name in beside}, field)
    pooling = f"{folder}/{POOLING}" if folder else POOLING
    beside += [pooling] if pooling in found else []
    return Choice(tuple(sorted({*weights, *beside})), folder)


def _complete(wanted: str, beside: set[str], field: str) -> None:
    """Refuse safetensors weights without a configuration or a tokenizer (a GGUF file carries both)."""
    missing = [] if "config.json" in beside else ["config.json"]
    if not any(needed <= beside for needed in TOKENIZERS):
        missing.append("tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt)")
    if missing:
        raise one(
            InputError, field, f"beside {wanted} there is no {' and no '.join(missing)}",
            "put them into the same folder; `save_pretrained` of model and tokenizer writes them",
        )  # fmt: skip


def _no_weights(scope: list[str], field: str) -> InputError:
    pickled = [name for name in scope if pickles.is_name(name)]
    if pickled:
        return one(
            InputError, field,
            f"the only weights are pickles{_some(pickled)}, which can run code when they are loaded",
            pickles.ADVICE,
        )  # fmt: skip
    return one(
        InputError, field, f"there are no weights among the files{_some(scope)}",
        "name a source with a .safetensors or .gguf file",
    )  # fmt: skip


def _checked(path: str, field: str) -> str:
    wanted = names.clean(path)
    problem = names.fault(wanted) if wanted else None
    if problem:
        raise one(
            InputError, f"{field}.path", f"{path!r} is not a path inside the source: {problem}",
            "write a relative path below the source, without '..'",
        )  # fmt: skip
    return wanted


def _absent(wanted: str, found: list[str], field: str) -> InputError:
    what = f"there is no {wanted!r} among the files{_some(found)}"
    return one(InputError, f"{field}.path", what, "name one of them")


def _some(found: list[str], most: int = 8) -> str:
    if not found:
        return ""
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ": " + ", ".join(found[:most]) + rest
