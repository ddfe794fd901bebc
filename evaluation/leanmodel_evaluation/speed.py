"""Speed of both models on the engine in one run, in alternating blocks, so that what else the machine
does meets both alike.

Prompts come from the train and validation parts, which the proof asks neither model about: otherwise one
of them could answer from its prefix cache and the other not. Within a pair of blocks both get the same.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from leanmodel_api.parts import Example
from leanmodel_api.report import Estimate, Speed

from .answers import Answer
from .client import Asker
from .intervals import DRAWS, Floats, around

LEAST_BLOCKS, MOST_BLOCKS = 4, 10
_MEMORY = re.compile(
    r"^(?:\w+:)?process_resident_memory_bytes(?:\{[^}]*\})?\s+([0-9.eE+]+)\s*$", re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """What one model did in one block; ``tokens`` of prompts and answers together."""

    requests: int
    tokens: int
    seconds: float
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Comparison:
    """Speeds of both, and lean by large.

    Attributes:
        ratio_draws: resampled ratios, shape (draws,), for what is derived of them.
    """

    large: Speed
    lean: Speed
    ratio: Estimate
    ratio_draws: Floats
    blocks: int


def block_sizes(requests: int, concurrency: int) -> list[int]:
    """Return the sizes of the blocks: at least four rounds of the concurrency each, four to ten of them."""
    count = max(LEAST_BLOCKS, min(MOST_BLOCKS, requests // (4 * concurrency)))
    count = min(count, requests)
    return [requests // count + (index < requests % count) for index in range(count)]


def speed_prompts(
    unasked: Sequence[Example], asked: Sequence[Example], needed: int, seed: str
) -> list[Example]:
    """Return so many prompts, those that nobody was asked first; drawn by seed, again when there are too few."""
    fresh, rest = list(unasked), list(asked)
    generator = random.Random(seed)
    generator.shuffle(fresh)
    generator.shuffle(rest)
    pool = fresh + rest
    return [pool[index % len(pool)] for index in range(needed)] if pool else []


async def measure(
    asker: Asker, large: str, lean: str, prompts: Sequence[Example], max_tokens: int, concurrency: int,
    requests: int, report: Callable[[int, int], None],
) -> tuple[list[Block], list[Block]]:  # fmt: skip
    """Return the blocks of both models, measured in turn: large, lean, lean, large, large, …

    The order turns round in each pair, so that a machine that slows down steadily favours neither.

    Args:
        prompts: at least ``concurrency + requests``; the first ``concurrency`` warm both up and do not count.
    """
    for revision in (large, lean):
        await _block(asker, revision, prompts[:concurrency], max_tokens, concurrency)
    done: dict[str, list[Block]] = {large: [], lean: []}
    at, asked = concurrency, 0
    report(0, 2 * requests)
    for index, size in enumerate(block_sizes(requests, concurrency)):
        mine = prompts[at : at + size]
        at += size
        for revision in (large, lean) if index % 2 == 0 else (lean, large):
            done[revision].append(await _block(asker, revision, mine, max_tokens, concurrency))
            asked += size
            report(asked, 2 * requests)
    return done[large], done[lean]


async def _block(
    asker: Asker, revision: str, prompts: Sequence[Example], max_tokens: int, concurrency: int
) -> Block:
    queue = iter(prompts)
    answers: list[tuple[Answer, float]] = []

    async def worker() -> None:
        for example in queue:
            started = time.monotonic()
            answer = await asker.answer(revision, example, max_tokens)
            answers.append((answer, time.monotonic() - started))

    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(prompts))):
            group.create_task(worker())
    seconds = time.monotonic() - started
    # Those that a request's bill counts: by the hour's price both together have to make the hour.
    tokens = sum(answer.prompt_tokens + answer.completion_tokens for answer, _ in answers)
    return Block(len(answers), tokens, seconds, tuple(latency for _, latency in answers))


def compare_speed(
    large: Sequence[Block], lean: Sequence[Block], memory: tuple[int | None, int | None], seed: int
) -> Comparison:
    """Return speeds and their ratio; intervals resample the pairs of blocks.

    The ratio is the geometric mean over the pairs: turned round it is that of large by lean. The arithmetic mean of
    ratios is above 1 for two models that are equally fast, the more so the more the machine's other work disturbs.

    Args:
        large, lean: blocks in the order of the pairs.
        memory: bytes of each engine, where its metrics give them.
    """
    rates = np.array([[block.rate for block in blocks] for blocks in (large, lean)])
    pairs = rates.shape[1]
    draws = np.random.default_rng(seed).integers(0, pairs, size=(DRAWS, pairs))
    logs = np.log(rates[1]) - np.log(rates[0])
    ratio_draws: Floats = np.exp(logs[draws].mean(axis=1))
    return Comparison(
        large=_speed(large, rates[0], draws, memory[0]),
        lean=_speed(lean, rates[1], draws, memory[1]),
        ratio=around(math.exp(logs.mean()), ratio_draws, pairs),
        ratio_draws=ratio_draws,
        blocks=pairs,
    )


def _speed(
    blocks: Sequence[Block],
    rates: Floats,
    draws: np.ndarray[tuple[int, int], np.dtype[np.int64]],
    memory: int | None,
) -> Speed:
    latencies = np.concatenate([block.latencies for block in blocks]) * 1000
    seconds = sum(block.seconds for block in blocks)
    return Speed(
        requests_per_second=around(float(rates.mean()), rates[draws].mean(axis=1), len(blocks)),
        tokens_per_second=sum(block.tokens for block in blocks) / max(seconds, 1e-9),
        p50_ms=float(np.quantile(latencies, 0.5)),
        p99_ms=float(np.quantile(latencies, 0.99)),
        memory_bytes=memory,
    )


def memory_of(metrics: str | None) -> int | None:
    """Return the engine's resident memory from its Prometheus text, the sum over its processes; None without."""
    found = _MEMORY.findall(metrics or "")
    return int(sum(float(value) for value in found)) if found else None
