"""Which tokens stay when a vocabulary is cut, and the tokenizer's files to match. Pure: JSON in, JSON out.

A byte-pair tokenizer joins neighbours by its list of merges, the first of the list first. When every token that
a text's encoding goes through stays, with the merges that made it, the shorter list takes the same way through
that text: what went could not have been chosen. So the tokens that are used pull in the parts they are made of,
down to single bytes; and any other text still encodes, into smaller pieces.

WordPiece (BERT) takes the longest piece that fits, again and again. A longest piece that stays is the longest of
fewer, so the used pieces alone split what they came from as before; every single character that has a piece stays
for the rest, and so does a piece with a character that has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

KINDS = ("BPE", "WordPiece")
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
UNUSED = re.compile(r"\[unused\d+\]")
"""BERT's empty places, which no text comes to."""
SPACE = "▁"
# Parts of a tokenizer that carry no token's number.
PLAIN_PROCESSORS = ("ByteLevel",)
# Parts that name the first and the last token of a text.
ENDS_PROCESSORS = ("RobertaProcessing", "BertProcessing")
LISTS_OF_IDS = ("suppress_tokens", "begin_suppress_tokens")


def refusal(tokenizer: Mapping[str, Any]) -> str | None:
    """Return why a tokenizer (the object in ``tokenizer.json``) cannot be cut, or None when it can."""
    model = tokenizer["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "unknown")
    if kind not in KINDS:
        return f"a {kind} tokenizer"
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if kind == "BPE" else ():
        if model.get(name):
            return f"a BPE tokenizer with {name}"
    odd = sorted({step["type"] for step in _processors(tokenizer) if not _known(step)})
    return f"a {kind} tokenizer with the post-processor {', '.join(odd)}" if odd else None


def keep(tokenizer: Mapping[str, Any], used: Iterable[int], least: int) -> list[int]:
    """Return the numbers of the tokens that stay, in order.

    Args:
        tokenizer: the object in ``tokenizer.json``.
        used: numbers of the tokens that the domain's texts are made of.
        least: tokens at least; filled up with what the tokenizer learned first, which is what is commonest.
    """
    numbers: dict[str, int] = tokenizer["model"]["vocab"]
    names = {number: token for token, number in numbers.items()}
    merges = list(_merges(tokenizer))
    parts: dict[str, list[tuple[str, str]]] = {}
    for left, right in merges:
        parts.setdefault(left + right, []).append((left, right))
    stays: set[str] = set()

    def add(token: str) -> None:
        waiting = [token]
        while waiting:
            one = waiting.pop()
            if one in numbers and one not in stays:
                stays.add(one)
                waiting += [part for pair in parts.get(one, ()) for part in pair]

    added = {entry["id"] for entry in tokenizer["added_tokens"]}
    for token in _base(tokenizer) if "merges" in tokenizer["model"] else _characters(tokenizer):
        add(token)
    for number in (*added, *used):
        if number in names:
            add(names[number])
    outside = len(added - names.keys())
    # What no merge makes (rare characters, in some tokenizers) comes last.
    for token in (*(left + right for left, right in merges), *numbers):
        if len(stays) + outside >= least:
            break
        if not UNUSED.fullmatch(token):
            add(token)
    return sorted(added | {numbers[token] for token in stays})


def cut(tokenizer: Mapping[str, Any], kept: Iterable[int]) -> dict[str, Any]:
    """Return ``tokenizer.json`` with the kept tokens alone, numbered anew in their order.

    Args:
        tokenizer: the object in ``tokenizer.json``.
        kept: old numbers in their new order, as :func:`keep` gives them.
    """
    new = {old: number for number, old in enumerate(kept)}
    model = tokenizer["model"]
    vocabulary = {token: new[old] for token, old in model["vocab"].items() if old in new}
    found = {**tokenizer, "model": {**model, "vocab": vocabulary}}
    if "merges" in model:
        found["model"]["merges"] = [
            merge
            for merge, (left, right) in zip(model["merges"], _merges(tokenizer), strict=True)
            if {left, right, left + right} <= vocabulary.keys()
        ]
    found["added_tokens"] = [{**entry, "id": new[entry["id"]]} for entry in tokenizer["added_tokens"]]
    if tokenizer.get("post_processor"):
        found["post_processor"] = _renumbered(tokenizer["post_processor"], new)
    if (tokenizer.get("padding") or {}).get("pad_id") in new:
        found["padding"] = {**tokenizer["padding"], "pad_id": new[tokenizer["padding"]["pad_id"]]}
    return found


def renumber(config: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """Return a configuration with its token numbers translated; what names a token that went is left out.

    Args:
        config: ``config.json``, ``generation_config.json`` or ``tokenizer_config.json``.
        new: old number to new.
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name == "added_tokens_decoder":
            found[name] = {str(new[int(old)]): entry for old, entry in value.items() if int(old) in new}
        elif name in LISTS_OF_IDS or (name.endswith("_token_id") and isinstance(value, list)):
            found[name] = [new[old] for old in value or [] if old in new]
        elif name.endswith("_token_id") and isinstance(value, int):
            if value in new:
                found[name] = new[value]
        else:
            found[name] = value
    return found


def _merges(tokenizer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the pairs that are joined, first learned first; older files write a pair as one string."""
    for merge in tokenizer["model"].get("merges", ()):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _base(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    """Yield what any text can be written with: bytes, or single characters where bytes are no tokens."""
    model = tokenizer["model"]
    if model.get("unk_token"):
        yield model["unk_token"]
    fallback = [token for token in model["vocab"] if BYTE.fullmatch(token)]
    yield from fallback
    # Stands for a space; its own bytes would come back as this sign.
    yield SPACE
    if "ByteLevel" in str(tokenizer.get("pre_tokenizer")) or not fallback:
        yield from (token for token in model["vocab"] if len(token) == 1)


def _characters(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the pieces of one character, at a word's beginning and within it, and pieces with a character that has none."""
    model = tokenizer["model"]
    within = str(model["continuing_subword_prefix"])
    bare = [(token.startswith(within), token.removeprefix(within)) for token in model["vocab"]]
    single = {(inside, text) for inside, text in bare if len(text) == 1}
    yield model["unk_token"]
    for token, (inside, text) in zip(model["vocab"], bare, strict=True):
        if UNUSED.fullmatch(token):
            continue
        if not {(inside or at > 0, letter) for at, letter in enumerate(text)} <= single or len(text) == 1:
            yield token


def _processors(tokenizer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [tokenizer["post_processor"]] if tokenizer.get("post_processor") else []
    while waiting:
        one = waiting.pop()
        if one["type"] == "Sequence":
            waiting += one["processors"]
        else:
            yield one


def _known(processor: Mapping[str, Any]) -> bool:
    return processor["type"] in (*PLAIN_PROCESSORS, *ENDS_PROCESSORS, "TemplateProcessing")


def _renumbered(processor: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    found = dict(processor)
    if found["type"] == "Sequence":
        found["processors"] = [_renumbered(one, new) for one in found["processors"]]
    elif found["type"] == "TemplateProcessing":
        found["special_tokens"] = {
            token: {**entry, "ids": [new[old] for old in entry["ids"]]}
            for token, entry in found["special_tokens"].items()
        }
    elif found["type"] in ENDS_PROCESSORS:
        found |= {name: [found[name][0], new[found[name][1]]] for name in ("sep", "cls")}
    return found
