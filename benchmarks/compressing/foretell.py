"""Says what rows would need, under the compression environment: ``foretell.py INPUT OUTPUT``, both JSON.

The input names a ``store`` and has for each row its ``plans``, the large model's first; the output gives each row's peak
memory in bytes as ``leanmodel estimate`` says it before any work: from shapes, and texts that are not tokenised yet.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(source: Path, target: Path) -> None:
    """Foretell what the input asks for."""
    from leanmodel_api.plan import CompressPlan
    from leanmodel_compression import estimate
    from leanmodel_store.artifacts import Store

    asked, found = json.loads(source.read_text(encoding="utf-8")), {}
    for row, plans in asked["plans"].items():
        tasks = estimate.all_tasks(
            [CompressPlan.model_validate(plan) for plan in plans], Store(Path(asked["store"]))
        )
        found[row] = max(item.step.memory(task) for item, task in tasks[-1])
    target.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
