"""Make a pair's records of two encoders that `leanmodel compress` made, asked by the engine's own code.

    python benchmarks/pairs/encoders.py MANIFEST PAIR LARGE LEAN

MANIFEST is the one that was given to `leanmodel compress`, PAIR the name of the file, LARGE and LEAN the digests that the
command printed. The artifacts are computed by what serves them (ONNX Runtime, one text after the other), the replies read
by the proof's client, split and judged by the proof; router and Ray are left out. A request's cost is its share of the CPU
seconds at 0.05 dollars an hour. Needs LEANMODEL_HOME as it was then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import packing

from leanmodel_api.parts import Example
from leanmodel_api.policy import Record
from leanmodel_cli.runs import home, read_manifest
from leanmodel_evaluation.answers import Answer
from leanmodel_evaluation.client import parse_answer
from leanmodel_evaluation.judged import ASKED_PARTS, judged_parts
from leanmodel_evaluation.metrics import Task
from leanmodel_evaluation.records import records
from leanmodel_routing.table import Table
from leanmodel_serving.engines.classify import answer
from leanmodel_serving.engines.onnx import Encoder
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store


def asked(digest: str, examples: Sequence[Example]) -> tuple[list[Answer], float]:
    """Return an artifact's answers, and how many it gives in a second of CPU."""
    folder = home() / "store" / "objects" / digest.removeprefix("sha256:") / "files"
    encoder = Encoder(folder, 1)
    found, began = [], time.process_time()
    for index, example in enumerate(examples):
        ids = encoder.ids(example.text or "")
        started = time.process_time()
        reply = answer(digest, encoder.labels, encoder.answers([ids]), len(ids), probabilities=True)
        found.append(parse_answer(str(index), reply, time.process_time() - started))
    return found, len(examples) / (time.process_time() - began)


def made(manifest: Path, large: str, lean: str) -> list[Record]:
    """Return the records of all parts that a proof would ask."""
    spec = read_manifest(manifest).spec
    data_set, store = spec.data_sets[0], Store(home() / "store")
    data = datasets.load(data_set, manifest.resolve().parent, store)
    parts = {name: list(getattr(data, name)) for name in ASKED_PARTS}
    everything = [example for name in ASKED_PARTS for example in parts[name]]
    answers, rates = {}, {}
    for role, digest in (("large", large), ("lean", lean)):
        answers[role], rates[role] = asked(digest, everything)
        print(f"{role}: {rates[role]:.1f} texts in a second of CPU")
    speed = SimpleNamespace(
        large=SimpleNamespace(requests_per_second=SimpleNamespace(value=rates["large"])),
        ratio=SimpleNamespace(value=rates["lean"] / rates["large"]),
    )
    both: Any = SimpleNamespace(**answers, large_scores=None, lean_scores=None, speed=speed)
    prices: Any = SimpleNamespace(large_price=spec.pricing.large, lean_price=spec.pricing.lean)
    judged = judged_parts(prices, parts, both, Task.of(data_set, data.label_counts))
    metric = spec.evaluation.metric
    return [record for name in ASKED_PARTS for record in records(judged[name], metric, balanced=False)]


def small(record: Record) -> Record:
    """Return the record with fewer digits, and without what does not vary."""
    return record.model_copy(
        update={
            "lean_logprobs": tuple(round(value, 3) for value in record.lean_logprobs or ()),
            "lean_top_logprobs": tuple(
                tuple(round(value, 3) for value in top) for top in record.lean_top_logprobs or ()
            ),
            "lean_cost": float(f"{record.lean_cost or 0:.3g}"),
            "large_cost": float(f"{record.large_cost or 0:.3g}"),
            "lean_latency": None,
            "large_latency": None,
        }
    )


def main() -> None:
    """Write the file, and print what it amounts to."""
    manifest, name, large, lean = Path(sys.argv[1]), *sys.argv[2:5]
    found = sorted((small(record) for record in made(manifest, large, lean)), key=lambda one: str(one.prompt))
    out = packing.write(name, found)
    table = Table.of(found)
    print(
        f"{out.name}: {len(found)} records, {out.stat().st_size} bytes; mean quality: large {table.large.mean():.4f}, lean "
        f"{table.lean.mean():.4f}; both right {float((table.lean * table.large).mean()):.4f}"
    )


if __name__ == "__main__":
    main()
