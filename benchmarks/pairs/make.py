"""Make the pair's records anew: train both models on a quarter of the messages and ask them the rest.

    python benchmarks/pairs/make.py

Half a minute of CPU. The records come out alike but for their costs, which are of the machine.
"""

from __future__ import annotations

import csv
import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import packing
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline

from leanmodel_api.policy import Record
from leanmodel_routing.table import Table

HERE = Path(__file__).resolve().parent
MESSAGES = HERE.parents[1] / "examples" / "quickstart" / "data" / "sms.tsv"
TRAINED = 0.25
USD_PER_HOUR = 0.05
"""Of one core; a request costs its share of the CPU seconds that all of them took together."""


def messages() -> dict[str, str]:
    """Return the label of each message; of messages that stand there more than once the first."""
    found: dict[str, str] = {}
    with MESSAGES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            found.setdefault(" ".join(row["msg"].split()), row["label"])
    return found


def large_model() -> Pipeline:
    """Return a logistic regression on words, word pairs and all runs of two to five characters."""
    features = FeatureUnion(
        [
            ("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)),
            ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)),
        ]
    )
    return Pipeline([("features", features), ("head", LogisticRegression(C=100.0, max_iter=1000))])


def lean_model() -> Pipeline:
    """Return a logistic regression on the hundred commonest words."""
    return Pipeline(
        [("features", TfidfVectorizer(max_features=100)), ("head", LogisticRegression(C=10.0, max_iter=1000))]
    )


def asked(model: Pipeline, texts: Sequence[str]) -> tuple[NDArray[np.float64], float]:
    """Return the model's probabilities [n, labels], and what each answer cost in dollars."""
    began = time.process_time()
    found = model.predict_proba(texts)
    return found, (time.process_time() - began) / len(texts) / 3600 * USD_PER_HOUR


def main() -> None:
    """Write the records, and print what they amount to."""
    labels = messages()
    drawn = sorted(labels, key=lambda text: hashlib.sha256(f"0\n{text}".encode()).hexdigest())
    train, rest = drawn[: round(TRAINED * len(drawn))], sorted(drawn[round(TRAINED * len(drawn)) :])
    large, lean = (
        model.fit(train, [labels[text] for text in train]) for model in (large_model(), lean_model())
    )
    large_shares, large_cost = asked(large, rest)
    lean_shares, lean_cost = asked(lean, rest)
    records = [
        _record(text, labels[text], list(lean.classes_), mine, theirs, lean_cost, large_cost)
        for text, mine, theirs in zip(rest, lean_shares, large_shares, strict=True)
    ]
    out = packing.write("sms-words", records)
    table = Table.of(records, "balanced")
    print(
        f"{out.name}: {len(records)} records, {out.stat().st_size} bytes; balanced accuracy: large "
        f"{table.mass @ table.large:.4f}, lean {table.mass @ table.lean:.4f}"
    )


def _record(
    text: str, label: str, names: list[str], lean: NDArray[np.float64], large: NDArray[np.float64],
    lean_cost: float, large_cost: float,
) -> Record:  # fmt: skip
    ranked = np.argsort(-lean)
    # As a classifier's engine says it: one token, whose alternatives are the other labels.
    tops = tuple(round(min(0.0, math.log(max(lean[place], 1e-12))), 6) for place in ranked)
    answer, better = names[int(ranked[0])], names[int(np.argmax(large))]
    return Record(
        prompt=text, lean_quality=float(answer == label), large_quality=float(better == label), lean_answer=answer,
        large_answer=better, lean_logprobs=tops[:1], lean_top_logprobs=(tops,), lean_finish_reason="stop",
        lean_cost=float(f"{lean_cost:.3g}"), large_cost=float(f"{large_cost:.3g}"), stratum=label,
    )  # fmt: skip


if __name__ == "__main__":
    main()
