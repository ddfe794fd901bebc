"""Trim: the vocabulary is cut to what a domain uses. Rows of the token table go, the rest stays bit for bit.

In a small model the token table is much of the bytes (a fifth of SmolLM2-135M), and most of it stands for words
that never occur in one domain. Tokens are kept by use, not by number: those of the train part's rows with
everything they are made of, special tokens and bytes (see vocabulary). No text becomes unwritable; a word that was
not seen takes more tokens, and the figure ``validationTokens`` says how many more.

What is written is checked before it counts: the tokenizer is loaded again and must give the same text and, for
the domain's own texts, the same tokens; and the logits of kept tokens must be what they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leanmodel_api.errors import Issue

from .. import devices, families, hf, memory
from ..batches import Row
from ..classifiers.shapes import any_shape
from ..shapes import ModelShape, forward_flops
from . import vocabulary
from .protocol import Outcome, Place, StepError, Task, Work, checked

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# Copied as they are: they name tokens by their text. Slower tokenizers' files would contradict the new one.
PLAIN_FILES = ("special_tokens_map.json", "chat_template.jinja")
# The logits of so many rows, of so many tokens each, are compared.
COMPARED_ROWS = 4
COMPARED_TOKENS = 64
TOLERANCE = 1e-4


class Trimming:
    """Removes tokens that a domain does not use."""

    name = "Trim"
    version = 1
    libraries = ("tokenizers", "torch", "transformers")
    teaches = False
    dtype = "bfloat16"

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """The train part says which tokens are used."""
        return True, spec.data_set

    def max_length(self, spec: Any) -> int | None:
        """Every token of every row counts."""
        return None

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """How many tokens stay at least; the rows count by their content."""
        return dict(spec.model_dump(mode="json", exclude={"data_set", "type"}, exclude_none=True))

    def issues(self, task: Task) -> list[Issue]:
        """Check the kind of tokenizer, where it is known, the number of tokens, and that there are rows."""
        spec, field, found = task.spec, task.field, []
        if task.tokenizer not in ("", *vocabulary.KINDS):
            found.append(unsuited(field, f"a {task.tokenizer} tokenizer"))
        least = spec.min_vocabulary
        if least is not None and least >= task.shape.vocabulary:
            found.append(
                Issue(
                    f"{field}.minVocabulary",
                    f"{least} tokens at least, and the model has {task.shape.vocabulary}",
                    "write fewer, or remove the step",
                )
            )
        if task.rows is None or not task.rows.train:
            found.append(
                Issue(
                    f"{field}.dataSet",
                    "its train part has no rows with an answer or a text",
                    "give rows: they say which tokens stay",
                )
            )
        return found

    def after(self, task: Task) -> ModelShape:
        """A smaller table, by a guess on its large side: only the tokenizer's own files can tell."""
        used = len({number for row in train(task) for number in row.ids})
        guess = max(task.spec.min_vocabulary or 0, 300 + 3 * used)
        return replace(task.shape, vocabulary=min(task.shape.vocabulary, guess))

    def memory(self, task: Task) -> int:
        """The model is loaded once whole and once cut, one after the other, beside both tokenizers."""
        tokens = COMPARED_ROWS * COMPARED_TOKENS
        tokenizers = 2048 * task.shape.vocabulary
        return checked(task, task.shape, memory.forward_bytes(task.shape, tokens, tokens) + tokenizers)

    def disk(self, task: Task) -> int:
        """The artifact in bf16."""
        return 2 * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """Copying the weights, two short passes, and encoding every row twice."""
        tokens = COMPARED_ROWS * COMPARED_TOKENS
        seen = sum(len(row.ids) for row in train(task))
        return Work(
            flops=2 * forward_flops(task.shape, tokens, tokens),
            bytes=20.0 * task.shape.parameters,
            seconds=4.0 + 1e-5 * seen,
        )

    def run(self, task: Task, place: Place) -> Outcome:
        """Choose the tokens, write tables and tokenizer, and hold both against the old ones."""
        place.progress(0, 4, "choosing tokens")
        tokenizer = read_tokenizer(place, task.field)
        used = {number for row in train(task) for number in self.tokens(row)}
        kept = vocabulary.keep(tokenizer, used | named(place), task.spec.min_vocabulary or 0)
        if kept[-1] >= task.shape.vocabulary or len(kept) >= task.shape.vocabulary:
            raise StepError(
                Issue(
                    task.field,
                    f"{len(kept)} of {task.shape.vocabulary} tokens would stay, numbered up to {kept[-1]}",
                    "remove the step, or write a smaller minVocabulary",
                )
            )
        place.progress(1, 4, f"writing {len(kept)} tokens")
        changed = write(place, tokenizer, kept, self.tables(place), self.dtype)
        place.progress(2, 4, "comparing texts")
        longer = self.compare_texts(task, place, kept)
        place.progress(3, 4, "comparing answers")
        self.compare_answers(task, place, kept)
        place.progress(4, 4, f"{len(kept)} tokens")
        shape = any_shape(hf.read_json(place.target / hf.CONFIG))
        figures = {"tokens": float(len(kept)), "tokensBefore": float(task.shape.vocabulary)}
        if longer is not None:
            figures["validationTokens"] = longer
        detail = f"{len(kept)} of {task.shape.vocabulary} tokens kept"
        return Outcome(changed, detail, None, figures, shape)

    def tables(self, place: Place) -> tuple[str, ...]:
        """Return what the names of the tensors end with that have a row for each token."""
        family = families.of_config(hf.read_json(place.source / hf.CONFIG))
        return f"{family.table}.weight", f"{families.HEAD}.weight"

    def tokens(self, row: Row) -> Sequence[int]:
        """Return a row's tokens."""
        return row.ids

    def text(self, row: Row, tokenizer: Any) -> str:
        """Return a row's text: prompt and answer as they were put together."""
        return self.read(tokenizer, row.ids)

    def read(self, tokenizer: Any, ids: Sequence[int]) -> str:
        """Return what tokens read as, without any tidying."""
        return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def load(self, folder: Path) -> Any:
        """Return the model of a folder."""
        return hf.load_model(folder)

    def answers(self, model: Any, ids: Any, kept: Sequence[int] | None) -> Any:
        """Return a row's logits, of kept tokens alone where they are given (tokens × logits)."""
        found = model(ids).logits[0]
        return found if kept is None else found[:, list(kept)].clone()

    def compare_texts(self, task: Task, place: Place, kept: Sequence[int]) -> float | None:
        """Hold the new tokenizer against the old one on every row.

        Returns:
            Tokens of the validation texts as a multiple of what they were, or None without any.

        Raises:
            StepError: a token has another number than its row, a text is not given back, or one of the domain's
                own texts is split differently.
        """
        old, new = hf.load_tokenizer(place.source), hf.load_tokenizer(place.target)
        number = {before: after for after, before in enumerate(kept)}
        named = {token: number[before] for token, before in old.get_vocab().items() if before in number}
        if new.get_vocab() != named:
            raise broken(task, "numbers its tokens otherwise than they were cut")
        assert task.rows is not None
        counts = [0, 0]
        for at, row in enumerate((*task.rows.train, *task.rows.validation)):
            text = self.text(row, old)
            was, now = (one.encode(text, add_special_tokens=False) for one in (old, new))
            if at >= len(task.rows.train):
                counts = [counts[0] + len(was), counts[1] + len(now)]
            if number.keys() >= set(was) and now != [number[before] for before in was]:
                raise broken(task, f"splits {text[:60]!r} otherwise")
            if (before := self.read(old, was)) != (after := self.read(new, now)):
                raise broken(task, f"gives {after[:60]!r} for {before[:60]!r}")
        for row in task.rows.train:
            tokens = self.tokens(row)
            if (told := self.read(new, [number[before] for before in tokens])) != self.read(old, tokens):
                raise broken(task, f"reads a row as {told[:60]!r}")
        return counts[1] / counts[0] if counts[0] else None

    def compare_answers(self, task: Task, place: Place, kept: Sequence[int]) -> None:
        """Ask both models the same rows; what they say of kept tokens must be what it was.

        Raises:
            StepError: they differ by more than float32's rounding.
        """
        import torch

        number = {before: after for after, before in enumerate(kept)}
        rows = [self.tokens(row)[:COMPARED_TOKENS] for row in train(task)[:COMPARED_ROWS]]
        model = self.load(place.source)
        with torch.no_grad():
            device = devices.of(model)
            before = [self.answers(model, torch.tensor([list(ids)]).to(device), kept) for ids in rows]
        del model
        memory.give_back()
        model = self.load(place.target)
        for ids, wanted in zip(rows, before, strict=True):
            new = torch.tensor([[number[before] for before in ids]]).to(device)
            with torch.no_grad():
                found = self.answers(model, new, None)
            if float((found - wanted).abs().max()) > TOLERANCE * max(1.0, float(wanted.abs().max())):
                raise broken(task, "has other logits than the model it was cut from")


def train(task: Task) -> Sequence[Row]:
    """Return the rows whose tokens stay."""
    return task.rows.train if task.rows is not None else ()


def unsuited(field: str, what: str) -> Issue:
    """Return the issue of a tokenizer that cannot be cut."""
    return Issue(
        f"{field}.type",
        f"Trim of {what} is not supported yet",
        f"remove the step; {' and '.join(vocabulary.KINDS)} can be cut",
    )


def read_tokenizer(place: Place, field: str) -> dict[str, Any]:
    """Return the object in ``tokenizer.json``.

    Raises:
        StepError: there is none, or it cannot be cut.
    """
    if not (place.source / TOKENIZER).exists():
        raise StepError(unsuited(field, f"a tokenizer without {TOKENIZER}"))
    tokenizer = hf.read_json(place.source / TOKENIZER)
    if (reason := vocabulary.refusal(tokenizer)) is not None:
        raise StepError(unsuited(field, reason))
    return tokenizer


def named(place: Place) -> set[int]:
    """Return the tokens that a configuration names (ends, padding): they stay whatever the rows say."""
    found: set[int] = set()
    for path in (place.source / hf.CONFIG, place.source / hf.GENERATION_CONFIG):
        for name, value in (hf.read_json(path) if path.exists() else {}).items():
            if name.endswith("_token_id") and value is not None:
                found |= set(value if isinstance(value, list) else [value])
    return found


def write(
    place: Place, tokenizer: Mapping[str, Any], kept: Sequence[int], tables: tuple[str, ...], dtype: str
) -> int:
    """Write the cut model and return how many tables were cut.

    Args:
        tokenizer: the object in ``tokenizer.json``.
        kept: old numbers of the tokens that stay, in their new order.
        tables: what the names of the tensors end with that have a row for each token.
        dtype: in which the weights are stored.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    new = {old: number for number, old in enumerate(kept)}
    tensors, rows, changed = {}, torch.tensor(kept, dtype=torch.long), 0
    with safe_open(str(place.source / hf.WEIGHTS), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            tensors[name] = file.get_tensor(name)
            if name.endswith(tables):
                tensors[name] = tensors[name].index_select(0, rows)
                changed += 1
    save_file(tensors, str(place.target / hf.WEIGHTS), metadata={"format": "pt"})
    config = vocabulary.renumber(hf.read_json(place.source / hf.CONFIG), new)
    hf.write_json(place.target / hf.CONFIG, {**config, "vocab_size": len(kept)})
    for name in (hf.GENERATION_CONFIG, TOKENIZER_CONFIG):
        if (place.source / name).exists():
            hf.write_json(place.target / name, vocabulary.renumber(hf.read_json(place.source / name), new))
    for name in PLAIN_FILES:
        if (place.source / name).exists():
            (place.target / name).write_bytes((place.source / name).read_bytes())
    text = json.dumps(vocabulary.cut(tokenizer, kept), ensure_ascii=False, separators=(",", ":"))
    (place.target / TOKENIZER).write_text(text, encoding="utf-8")
    hf.tidy(place.target, dtype)
    return changed


def broken(task: Task, what: str) -> StepError:
    """Return the error of a cut that does not hold."""
    return StepError(
        Issue(f"{task.field}.type", f"the trimmed model {what}", "remove the step, and report this")
    )
