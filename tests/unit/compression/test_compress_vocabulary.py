"""A cut vocabulary splits what it was cut for as before, and writes everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from leanmodel_compression.steps import vocabulary

TEXTS = [
    "win a free prize now, call the number and win cash",
    "hello, will you be home later? thanks for the lunch",
    "see you at the station at noon, the train is late again",
    "l'été à Zürich: 30 °C, naïve façade",
    "freedom, prizes, callers, cashiers, homeless, stationary",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def bytes_tokenizer() -> dict[str, Any]:
    """As GPT-2, SmolLM2, Llama 3 and Qwen have it; special tokens first."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=520, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(TEXTS * 4, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    return dict(json.loads(inner.to_str()))


def fallback_tokenizer() -> dict[str, Any]:
    """As Llama 2 and Mistral have it: characters, and bytes for those that are no tokens."""
    base = bytes_tokenizer()
    letters = sorted({letter for text in TEXTS[:3] for letter in text.replace(" ", "▁")})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    merges = []
    for left, right in base["model"]["merges"]:
        left, right = left.replace("Ġ", "▁"), right.replace("Ġ", "▁")
        if left in tokens and right in tokens:
            merges.append([left, right])
            tokens += [left + right] if left + right not in tokens else []
    model = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
        "vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges,
    }  # fmt: skip
    added = [entry | {"content": token, "id": number} for number, (entry, token) in enumerate(zip(base["added_tokens"], tokens[:3], strict=True))]  # fmt: skip
    parts = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    return base | {
        "model": model, "added_tokens": added, "pre_tokenizer": None, "post_processor": None,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "decoder": {"type": "Sequence", "decoders": parts},
    }  # fmt: skip


def pieces_tokenizer() -> dict[str, Any]:
    """As BERT has it: empty places first, special tokens by another name, one character without a piece within words."""
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##")
    special = ["[PAD]", *(f"[unused{at}]" for at in range(40)), "[UNK]", "[CLS]", "[SEP]"]
    inner.train_from_iterator(TEXTS * 4, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    inner.post_processor = processors.BertProcessing(("[SEP]", 43), ("[CLS]", 42))
    found = dict(json.loads(inner.to_str()))
    found["added_tokens"] = [
        entry for entry in found["added_tokens"] if not entry["content"].startswith("[unused")
    ]
    return found


KINDS = {"bytes": bytes_tokenizer(), "fallback": fallback_tokenizer(), "pieces": pieces_tokenizer()}
MERGING = ("bytes", "fallback")


def both(tokenizer: dict[str, Any], used: str, least: int = 0) -> tuple[Tokenizer, Tokenizer, dict[int, int]]:
    """Return the tokenizer, the one cut for a text, and the new numbers by the old ones."""
    old = Tokenizer.from_str(json.dumps(tokenizer))
    kept = vocabulary.keep(tokenizer, old.encode(used).ids, least)
    new = Tokenizer.from_str(json.dumps(vocabulary.cut(tokenizer, kept)))
    return old, new, {before: after for after, before in enumerate(kept)}


@pytest.mark.parametrize("kind", KINDS)
@given(used=st.one_of(st.sampled_from(TEXTS), st.text()), other=st.text(), least=st.integers(0, 500))
@example(used="", other="a b", least=0)
@settings(max_examples=60, deadline=None)
def test_texts_it_was_cut_for_are_split_as_before_and_others_are_written(
    kind: str, used: str, other: str, least: int
) -> None:
    old, new, number = both(KINDS[kind], used, least)
    assert new.encode(used).ids == [number[before] for before in old.encode(used).ids]
    for text in (used, other):
        told = [one.decode(one.encode(text).ids, skip_special_tokens=False) for one in (old, new)]
        assert told[0] == told[1]
    assert new.get_vocab() == {t: number[n] for t, n in old.get_vocab().items() if n in number}
    assert {token for token in (*SPECIAL, "[UNK]") if token in old.get_vocab()} <= new.get_vocab().keys()
    written = sum(vocabulary.UNUSED.fullmatch(token) is None for token in old.get_vocab())
    assert new.get_vocab_size() >= min(least, written)


def test_a_character_without_a_piece_of_its_own_keeps_the_pieces_that_it_stands_in() -> None:
    tokenizer = json.loads(json.dumps(KINDS["pieces"]))
    words = tokenizer["model"]["vocab"]
    number = words.pop("##q", None) or len(words)
    words["##qu"] = number
    old, new, _ = both(tokenizer, "a")
    assert old.encode("aqua").tokens == new.encode("aqua").tokens == ["[CLS]", "a", "##qu", "##a", "[SEP]"]


def test_empty_places_go_and_special_tokens_stand_around_a_text_as_before() -> None:
    old, new, number = both(KINDS["pieces"], "win a prize")
    assert not [token for token in new.get_vocab() if vocabulary.UNUSED.fullmatch(token)]
    assert new.encode("win a prize").tokens == old.encode("win a prize").tokens
    assert new.encode("win").ids[0] == number[42] == new.token_to_id("[CLS]")


@pytest.mark.parametrize("kind", MERGING)
def test_what_stays_beside_the_used_is_what_was_learned_first(kind: str) -> None:
    tokenizer = KINDS[kind]
    few, more = (set(vocabulary.keep(tokenizer, [], least)) for least in (0, 320))
    numbers = tokenizer["model"]["vocab"]
    results = [numbers["".join(merge)] for merge in tokenizer["model"]["merges"]]
    extra = [number for number in results if number in more - few]
    assert few < more and len(more) >= 320
    assert extra == [number for number in results if number not in few][: len(extra)]


def test_numbers_of_special_tokens_follow_into_every_file() -> None:
    old, new, number = both(KINDS["bytes"], "win")
    assert new.encode("win", add_special_tokens=True).ids[0] == number[1] == new.token_to_id("<|im_start|>")
    config = {
        "eos_token_id": [2, 7],
        "pad_token_id": 2,
        "bos_token_id": None,
        "sep_token_id": 9,
        "hidden_size": 2,
    }
    config |= {"suppress_tokens": [9, 2], "added_tokens_decoder": {"2": "end", "9": "gone"}}
    assert vocabulary.renumber(config, {2: 0, 7: 1}) == {
        "eos_token_id": [0, 1], "pad_token_id": 0, "bos_token_id": None, "hidden_size": 2,
        "suppress_tokens": [0], "added_tokens_decoder": {"0": "end"},
    }  # fmt: skip


def test_added_tokens_behind_the_learned_ones_stay_behind_them() -> None:
    inner = Tokenizer.from_str(json.dumps(KINDS["bytes"]))
    inner.add_special_tokens(["<|tool|>"])
    old, new, number = both(json.loads(inner.to_str()), "win")
    assert new.token_to_id("<|tool|>") == new.get_vocab_size() - 1 == number[old.token_to_id("<|tool|>")]
    assert new.encode("<|tool|>win").ids[1] == new.token_to_id("<|tool|>")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "a Unigram tokenizer"),
        ({"model": {"type": "WordLevel", "vocab": {}}}, "a WordLevel tokenizer"),
        (KINDS["pieces"], None),
        (
            KINDS["pieces"] | {"post_processor": {"type": "Odd"}},
            "a WordPiece tokenizer with the post-processor Odd",
        ),
        ({"model": KINDS["bytes"]["model"] | {"end_of_word_suffix": "</w>"}}, "with end_of_word_suffix"),
        ({"post_processor": {"type": "Sequence", "processors": [{"type": "Odd"}]}}, "post-processor Odd"),
        ({}, None),
    ],
)
def test_what_cannot_be_cut_is_named_by_its_type(change: dict[str, Any], words: str | None) -> None:
    found = vocabulary.refusal(KINDS["bytes"] | change)
    assert (found is None) if words is None else (found is not None and words in found)
