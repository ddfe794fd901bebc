"""Make a pair's records of what `leanmodel up` asked both models: judged and priced by the proof's own code.

    python benchmarks/pairs/from_run.py RUN PAIR

RUN is the run's folder ($LEANMODEL_HOME/runs/default.NAME) after a finished proof; PAIR names the file. The answers are
those of the engines as served, kept by the proof in the store; nothing is asked again. Log-probabilities are rounded to
three decimals and seconds to two, which keeps the file small.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import packing
import questions

from leanmodel_api.plan import ProvePlan
from leanmodel_api.policy import Record
from leanmodel_api.report import ProveReport
from leanmodel_evaluation.answers import Answer, request_digest
from leanmodel_evaluation.asked import book_of
from leanmodel_evaluation.client import answer_body
from leanmodel_evaluation.judged import ASKED_PARTS, judged_parts
from leanmodel_evaluation.metrics import Task, promised
from leanmodel_evaluation.records import records
from leanmodel_routing.table import Table
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store


def made(run: Path) -> list[Record]:
    """Return the records of all parts that were asked, of the run's newest proof."""
    report = ProveReport.model_validate_json((run / "report.json").read_bytes())
    plan = next(
        plan
        for plan in map(_plan, sorted((run / "plans").glob("*.json")))
        if plan and plan.lean.artifact == report.lean.artifact
    )
    folder = run.parent.parent / "store"
    data = datasets.load(plan.data_set, Path(plan.base_dir), Store(folder))
    parts = {name: list(getattr(data, name)) for name in ASKED_PARTS}
    everything = [example for name in ASKED_PARTS for example in parts[name]]
    answers: dict[str, list[Answer]] = {}
    for role, revision in (("large", plan.large), ("lean", plan.lean)):
        with book_of(plan, revision, folder / "answers").writing() as book:
            keys = [
                request_digest(
                    answer_body(plan.name, example, plan.evaluation.sampling.max_tokens, plan.task)[1]
                )
                for example in everything
            ]
            found = [book.answer(key) for key in keys]
        answers[role] = [answer for answer in found if answer is not None]
        assert len(answers[role]) == len(everything), f"{role}: the proof is not finished"
    asked: Any = SimpleNamespace(
        **answers,
        large_scores=None,
        lean_scores=None,
        speed=SimpleNamespace(large=report.speed["large"], ratio=report.throughput_ratio),
    )
    metric = promised(report.metric)
    task = Task.of(plan.data_set, data.label_counts)
    judged = judged_parts(plan, parts, asked, task)
    return [
        record
        for name in ASKED_PARTS
        for record in records(judged[name], metric, metric == "BalancedAccuracy")
    ]


def _plan(path: Path) -> ProvePlan | None:
    content = json.loads(path.read_text())
    return ProvePlan.model_validate(content) if "routing" in content else None


def small(record: Record, kinds: dict[str, str]) -> Record:
    """Return the record with fewer digits, its prompt as one text, and its kind of question as the group."""
    prompt = record.prompt if isinstance(record.prompt, str) else str(record.prompt[-1]["content"])
    tops = record.lean_top_logprobs
    return record.model_copy(
        update={
            "prompt": prompt,
            "group": kinds.get(prompt),
            "lean_logprobs": record.lean_logprobs and tuple(round(x, 3) for x in record.lean_logprobs),
            "lean_top_logprobs": tops and tuple(tuple(round(x, 3) for x in top) for top in tops),
            "lean_cost": record.lean_cost and float(f"{record.lean_cost:.3g}"),
            "large_cost": record.large_cost and float(f"{record.large_cost:.3g}"),
            "lean_latency": record.lean_latency and round(record.lean_latency, 2),
            "large_latency": record.large_latency and round(record.large_latency, 2),
        }
    )


def main() -> None:
    """Write the file, and print what it amounts to."""
    run, name = Path(sys.argv[1]), sys.argv[2]
    kinds = {question: kind for kind, question, _ in questions.questions()}
    found = sorted((small(record, kinds) for record in made(run)), key=lambda record: str(record.prompt))
    out = packing.write(name, found)
    table = Table.of(found)
    both = float(((table.lean > 0) & (table.large > 0)).mean())
    print(
        f"{out.name}: {len(found)} records, {out.stat().st_size} bytes; mean quality: large {table.large.mean():.4f}, lean "
        f"{table.lean.mean():.4f}; both right {both:.4f}"
    )
    for group, rows in table.groups.items():
        print(
            f"  {group}: {len(rows)}, large {table.large[rows].mean():.3f}, lean {table.lean[rows].mean():.3f}"
        )


if __name__ == "__main__":
    main()
