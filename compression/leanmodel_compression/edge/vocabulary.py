"""A tokenizer as llama.cpp reads it: tokens, their kinds, merges, and how text is split before merging.

Only byte-level BPE is written. How such a tokenizer splits text is a pattern in ``tokenizer.json`` and a name in
GGUF; the names below are those whose patterns are the same. What is written is held against the tokenizer itself
afterwards, on texts, so that a pattern that only looks the same is found out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import hf

TOKENIZER = "tokenizer.json"
NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5
GPT2, SMOLLM, LLAMA3, QWEN2 = "gpt-2", "smollm", "llama-bpe", "qwen2"
# How Llama 3's and Qwen 2's patterns treat digits, which nothing else in them has.
MARKS = {r"\p{N}{1,3}": LLAMA3, r"\p{N}|": QWEN2}


class UnsuitedError(ValueError):
    """llama.cpp has no tokenizer like this one; the message says what is unlike."""


@dataclass(frozen=True)
class Words:
    """A vocabulary for llama.cpp.

    Attributes:
        tokens: by number, as they stand in the vocabulary.
        kinds: NORMAL, CONTROL, USER or UNUSED, by number.
        merges: ``left right``, the first ones first.
        split: llama.cpp's name of the pattern by which text is split.
        named: numbers of the tokens that begin, end or pad (``bos``, ``eos``, ``pad``).
        begins: whether a text is begun with ``bos``.
        template: the chat template, or empty.
    """

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    split: str
    named: dict[str, int]
    begins: bool
    template: str


def read(folder: Path, config: Mapping[str, Any]) -> Words:
    """Read the vocabulary of a model's folder.

    Raises:
        UnsuitedError: it is no byte-level BPE, or splits text in a way that has no name in llama.cpp.
    """
    if not (folder / TOKENIZER).exists():
        raise UnsuitedError(f"there is no {TOKENIZER}")
    found = hf.read_json(folder / TOKENIZER)
    split = split_of(found)
    tokenizer = hf.load_tokenizer(folder)
    model, added = found["model"], found.get("added_tokens", [])
    size = int(config["vocab_size"])
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [UNUSED] * size
    for token, number in model["vocab"].items():
        tokens[number], kinds[number] = token, NORMAL
    for entry in added:
        number = int(entry["id"])
        tokens[number], kinds[number] = entry["content"], CONTROL if entry["special"] else USER
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    named = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    template = tokenizer.chat_template
    return Words(
        tokens, kinds, merges, split, {name: number for name, number in named.items() if number is not None},
        begins, template if isinstance(template, str) else "",
    )  # fmt: skip


def split_of(tokenizer: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of how a ``tokenizer.json`` splits text.

    Raises:
        UnsuitedError: it has none.
    """
    kind = tokenizer.get("model", {}).get("type")
    if kind != "BPE":
        raise UnsuitedError(f"it is a {kind} tokenizer, not a byte-level BPE")
    normal = tokenizer.get("normalizer")
    if normal and normal.get("normalizers") != [] and normal.get("type") != "NFC":
        raise UnsuitedError(f"it changes text before it splits it ({normal.get('type')})")
    parts = tokenizer.get("pre_tokenizer") or {}
    parts = parts.get("pretokenizers", [parts])
    kinds = [part.get("type") for part in parts]
    if not kinds or kinds[-1] != "ByteLevel" or parts[-1].get("add_prefix_space"):
        raise UnsuitedError("it is not a byte-level BPE")
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return GPT2
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return SMOLLM
    if kinds == ["Split", "ByteLevel"]:
        pattern = json.dumps(parts[0].get("pattern", {}), ensure_ascii=False).replace("\\\\", "\\")
        for mark, name in MARKS.items():
            if mark in pattern:
                return name
    raise UnsuitedError(f"llama.cpp has no name for how it splits text ({', '.join(map(str, kinds))})")


def add(writer: Any, words: Words) -> None:
    """Write a vocabulary into a GGUF file's header."""
    # "gpt2" stands for every byte-level BPE.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.split)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    writer.add_token_merges(words.merges)
    for name, number in words.named.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(words.begins)
    if words.template:
        writer.add_chat_template(words.template)
