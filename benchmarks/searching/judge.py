"""Judges artifacts on both sides, under the compression environment: ``judge.py INPUT OUTPUT``, both JSON.

The input names a ``plan`` (of the large model), a ``store`` and ``artifacts``; the output gives each one's quality on the
validation part, which a search sees, and on the report and test parts, which it does not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(source: Path, target: Path) -> None:
    """Judge what the input names."""
    from leanmodel_api.plan import CompressPlan
    from leanmodel_compression.__main__ import settle

    asked = json.loads(source.read_text(encoding="utf-8"))
    plan = CompressPlan.model_validate(asked["plan"])
    settle(plan.limits.threads)
    from leanmodel_compression.search import measure
    from leanmodel_store import datasets
    from leanmodel_store.artifacts import Store

    store, data = Store(Path(asked["store"])), plan.data_sets[0]
    parts = datasets.load(data, Path(plan.base_dir), store)
    sides = {"validation": parts.validation, "held": [*parts.report, *parts.test]}
    found: dict[str, dict[str, Any]] = {}
    for digest in asked["artifacts"]:
        folder = store.open(digest).path
        found[digest] = {}
        for side, examples in sides.items():
            if plan.task is None:
                judged = measure.generator(folder, examples, data.choices or (), plan.max_model_length)
            else:
                judged = measure.classifier(folder, examples, plan.max_model_length)
            found[digest][side] = measure.quality(judged).model_dump()
    target.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
