"""Which rows go together: length buckets, shuffled batches, micro-batches. Pure and seeded."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

# A micro-batch holds at most so many tokens and answer positions (one long row may exceed them): it bounds
# the peak of memory whatever the batch size, and small matrices stay in the cache.
MICRO_TOKENS = 2048
MICRO_ANSWERS = 256


# A token of English is about four bytes; fewer keep estimates on the safe side.
ROUGH_BYTES = 2.5


def rough_tokens(text: str) -> int:
    """Return about how many tokens a text has, on the large side, before there is a tokenizer."""
    return int(len(text.encode()) / ROUGH_BYTES)


@dataclass(frozen=True)
class Row:
    """One tokenised example; the loss is on ``ids[first:]``, each predicted from the token before it."""

    ids: tuple[int, ...]
    first: int

    @property
    def answers(self) -> int:
        """Positions at which the output head is computed."""
        return len(self.ids) - self.first


@dataclass(frozen=True)
class Labelled(Row):
    """A text and its label: the label's number stands as the one answer position, after the text's tokens.

    Attributes:
        text: as it stands in the data set, for what cuts it otherwise.
    """

    text: str = ""

    def shortened(self, length: int) -> Labelled:
        """Cut the text to ``length`` tokens; its last one, which closes it, stays."""
        *text, label = self.ids
        return (
            self
            if len(text) <= length
            else Labelled((*text[: length - 1], text[-1], label), length, self.text)
        )


@dataclass(frozen=True)
class Rows:
    """What a step sees of a data set: tokenised train and validation parts."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]


def cut(row: Row, length: int) -> Row:
    """Shorten a row to ``length`` tokens at the front of its prompt, and only then at the answer's end."""
    if isinstance(row, Labelled):
        return row.shortened(length)
    over = len(row.ids) - length
    if over <= 0:
        return row
    # One token of the prompt must stay: the first answer token is predicted from it.
    front = min(over, row.first - 1)
    ids = row.ids[front:][:length]
    return Row(ids, row.first - front)


def steps_in(rows: int, batch_size: int, epochs: float) -> int:
    """Return the optimiser steps of so many passes; at least one."""
    return max(1, round(math.ceil(rows / batch_size) * epochs))


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return one pass over the rows as batches of indices.

    Rows of like length share a batch (less padding); a little noise in the sort mixes neighbours, and the
    order of the batches is shuffled. The same arguments give the same batches on every machine.
    """
    draw = random.Random(f"{seed}/{epoch}")
    noisy = sorted((length * (1 + 0.1 * draw.random()), index) for index, length in enumerate(lengths))
    order = [index for _, index in noisy]
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    draw.shuffle(batches)
    return batches


def batch_at(lengths: Sequence[int], batch_size: int, seed: int, step: int) -> list[int]:
    """Return the batch of optimiser step ``step`` (from 0), over as many passes as it takes."""
    per_epoch = math.ceil(len(lengths) / batch_size)
    return epoch_batches(lengths, batch_size, seed, step // per_epoch)[step % per_epoch]


def micro_batches(
    batch: Sequence[int], rows: Sequence[Row], tokens: int = MICRO_TOKENS, answers: int = MICRO_ANSWERS
) -> list[list[int]]:
    """Split a batch so that no part exceeds ``tokens`` (padded) or ``answers``, save a single row."""
    parts: list[list[int]] = []
    longest = positions = 0
    for index in batch:
        row = rows[index]
        width = max(longest, len(row.ids))
        fits = bool(parts) and width * (len(parts[-1]) + 1) <= tokens and positions + row.answers <= answers
        if fits:
            parts[-1].append(index)
            longest, positions = width, positions + row.answers
        else:
            parts.append([index])
            longest, positions = len(row.ids), row.answers
    return parts


def by_length(rows: Sequence[Row], tokens: int = MICRO_TOKENS) -> list[list[int]]:
    """Return all rows as micro-batches of like length, the shortest first: for passes without gradients."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index].ids), index))
    return micro_batches(order, rows, tokens)


def padded_tokens(rows: Sequence[Row], batch_size: int, seed: int = 0) -> int:
    """Return the tokens of one pass, padding included."""
    lengths = [len(row.ids) for row in rows]
    parts = [
        part for batch in epoch_batches(lengths, batch_size, seed, 0) for part in micro_batches(batch, rows)
    ]
    return sum(max(lengths[index] for index in part) * len(part) for part in parts)


def largest_micro(rows: Sequence[Row], batch_size: int) -> tuple[int, int]:
    """Return an upper bound of (padded tokens, answer positions) of any micro-batch."""
    longest = max((len(row.ids) for row in rows), default=0)
    most = max((row.answers for row in rows), default=0)
    # Long answers let few rows together.
    together = min(batch_size, max(1, MICRO_ANSWERS // max(1, min((row.answers for row in rows), default=1))))
    tokens = max(longest, min(MICRO_TOKENS, longest * together))
    return tokens, max(most, min(MICRO_ANSWERS, most * batch_size))
