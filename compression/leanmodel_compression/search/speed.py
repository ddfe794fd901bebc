"""How fast a classifier answers, in the engine that will serve it: ONNX Runtime, as a replica runs it.

Measured is what a replica does for a request between its body and its answer: the text into tokens, the session, the
logits. HTTP and the router are not in it. Alone, each text is asked by itself; together, as many texts as the engine takes
at once are computed in the engine's own groups. Neighbours on the machine slow a run for a moment, and nothing speeds it
up: each text's time is the median of passes that lie apart.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanmodel_api.batching import MAX_SEQUENCES, groups
from leanmodel_api.figure import Estimate
from leanmodel_api.parts import Example

from .. import hf
from ..classifiers import onnx_file

VERSION = 1
"""Raise it when a change here changes what is measured: measurements are kept in the store."""
TEXTS = 128
"""Texts that are asked, spread over the validation part."""
PASSES = 3
WARM_UP = 8
"""Texts before the first that counts, the longest among them: first sizes take memory, which later ones find."""
QUANTILE = 0.95
TAIL = 0.025
"""Of each side of a 95% interval."""
STUDENT = 4.302652729911275
"""Of a 95% interval with PASSES - 1 degrees of freedom."""


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        latency_ms: milliseconds of one request alone, at the 95th percentile of the texts.
        requests_per_second: with full batches.
    """

    latency_ms: Estimate
    requests_per_second: Estimate

    @classmethod
    def from_json(cls, text: str) -> Speed:
        """Read what :func:`measure` wrote."""
        found = json.loads(text)
        return cls(percentile(found["aloneMs"]), mean(found["perSecond"]))


def percentile(values: Sequence[float], share: float = QUANTILE) -> Estimate:
    """Return a quantile with its 95% interval by order statistics; its ends are those of the values where these are few.

    Args:
        values: at least one.
        share: which quantile.
    """
    ordered, n = sorted(values), len(values)
    below = [0.0]  # chance that fewer than so many values lie below the true quantile
    for count in range(n + 1):
        below.append(below[-1] + math.comb(n, count) * share**count * (1 - share) ** (n - count))
    low = max((at for at in range(1, n + 1) if below[at] <= TAIL), default=1)
    high = next((at for at in range(1, n + 1) if below[at] >= 1 - TAIL), n)
    value = ordered[max(1, math.ceil(share * n)) - 1]
    return Estimate(value=value, low=min(value, ordered[low - 1]), high=max(value, ordered[high - 1]), n=n)


def mean(rates: Sequence[float]) -> Estimate:
    """Return the geometric mean of PASSES rates with its 95% interval, by Student's t of their logarithms.

    A rate is above 0, and so must be the interval that dollars are divided by.
    """
    logs = [math.log(rate) for rate in rates]
    middle, half = statistics.fmean(logs), STUDENT * statistics.stdev(logs) / math.sqrt(len(logs))
    return Estimate(
        value=math.exp(middle), low=math.exp(middle - half), high=math.exp(middle + half), n=len(rates)
    )


def dollars(speed: Speed, usd_per_hour: float) -> Estimate:
    """Return the US dollars of 1,000 requests at the price of a replica that is never idle."""
    per, price = speed.requests_per_second, usd_per_hour / 3.6
    return Estimate(value=price / per.value, low=price / per.high, high=price / per.low, n=per.n)


def drawn(examples: Sequence[Example], most: int = TEXTS) -> list[str]:
    """Return at most so many texts, spread evenly over the examples; the same for the same examples."""
    texts = [example.text for example in examples if example.text is not None]
    if len(texts) <= most:
        return texts
    return [texts[at * len(texts) // most] for at in range(most)]


class Replica:
    """What an engine's replica holds: session and tokenizer, set up as it does."""

    def __init__(self, folder: Path, length: int, threads: int) -> None:
        """Load both; arguments as of :func:`measure`."""
        from tokenizers import Tokenizer

        self._length = length
        self._session = onnx_file.session(folder / onnx_file.NAME, threads)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._pad = int(hf.read_json(folder / hf.CONFIG).get("pad_token_id") or 0)

    def answer(self, texts: Sequence[str]) -> list[Any]:
        """Return the logits of texts that came together."""
        ids = [self._tokens(text) for text in texts]
        found: list[Any] = [None] * len(ids)
        for group in groups([len(one) for one in ids]):
            rows = onnx_file.run(self._session, [ids[at] for at in group], self._pad)
            for at, row in zip(group, rows, strict=True):
                found[at] = row
        return found

    def _tokens(self, text: str) -> list[int]:
        ids = list(self._tokenizer.encode(text).ids)
        return ids if len(ids) <= self._length else [*ids[: self._length - 1], ids[-1]]


def measure(folder: Path, examples: Sequence[Example], length: int, threads: int) -> str:
    """Ask a classifier, and return as JSON each text's milliseconds and each pass's requests per second.

    Args:
        folder: with ``model.onnx`` and ``tokenizer.json``.
        examples: the validation part; those with a text count, and there must be one.
        length: tokens to which texts are cut, as the engine's limit does.
        threads: of the session.
    """
    texts, replica = drawn(examples), Replica(folder, length, threads)
    answer = replica.answer
    full = [texts[at % len(texts)] for at in range(math.ceil(len(texts) / MAX_SEQUENCES) * MAX_SEQUENCES)]
    batches = [full[at : at + MAX_SEQUENCES] for at in range(0, len(full), MAX_SEQUENCES)]
    for text in sorted(texts, key=len)[-WARM_UP:]:
        answer([text])
    answer(batches[0])
    alone: list[list[float]] = []
    rates = []
    for _ in range(PASSES):
        alone.append([_seconds(lambda text=text: answer([text])) for text in texts])  # type: ignore[misc]
        taken = sum(_seconds(lambda batch=batch: answer(batch)) for batch in batches)  # type: ignore[misc]
        rates.append(len(full) / taken)
    middle = [1e3 * statistics.median(times) for times in zip(*alone, strict=True)]
    return json.dumps({"aloneMs": middle, "perSecond": rates}, sort_keys=True)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return max(time.perf_counter() - started, 1e-9)
