"""The phase `llmcompressor`: our step and llm-compressor itself, the same recipe, in turn, a process for each run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from statistics import median
from typing import Any

from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_cli.processes import compression_python

from .make import Maker, RowError, compress
from .rows import Row
from .watched import Watched, watch

DIRECT = Path(__file__).with_name("direct.py")
RECIPES = ("words/gptq w4a16", "words/smoothquant w8a8", "words/awq w4a16")


def measure(maker: Maker, row: Row, runs: int) -> dict[str, Any]:
    """Return time and memory of ours and of llm-compressor's for a row of one Quantize step; medians of the runs."""
    plan, found = maker.plan(row), maker.large(row.subject)
    assert plan is not None and found is not None
    large, folder = found[1], maker.work / "direct"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    step = plan.steps[0]
    asked = {
        "model": str(maker.folder(large)), "threads": maker.limits.threads, "rows": str(folder / "rows.json"),
        "scheme": getattr(step, "scheme", ""), "algorithm": getattr(step, "algorithm", ""), "group": getattr(step, "group_size", None),
    }  # fmt: skip
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    _direct(
        {**asked, "make": "rows", "plan": str(folder / "plan.json"), "store": str(maker.store.root)}, folder
    )
    ours, direct = [], []
    for number in range(runs):
        # In turn, and the other first in every second run: what else the machine does meets both.
        for mine in (True, False) if number % 2 == 0 else (False, True):
            if mine:
                ours.append(_ours(maker, plan, large, folder / f"ours-{number}"))
            else:
                direct.append(_direct({**asked, "target": str(folder / f"direct-{number}")}, folder))
    seconds = [median(one.seconds for one in side) for side in (ours, direct)]
    peaks = [median(one.peak_anonymous for one in side) for side in (ours, direct)]
    return {
        "row": row.name, "key": maker.key(plan), "ours_seconds": seconds[0], "direct_seconds": seconds[1], "seconds_ratio": seconds[0] / seconds[1],
        "ours_peak": peaks[0], "direct_peak": peaks[1], "memory_ratio": peaks[0] / peaks[1], "runs": runs, "load": os.getloadavg()[0],
        "each": {"ours": [one.figures() for one in ours], "direct": [one.figures() for one in direct]},
    }  # fmt: skip


def _ours(maker: Maker, plan: CompressPlan, large: CompressResult, folder: Path) -> Watched:
    """Run our Job in a store that holds the large model and nothing else."""
    name = large.artifact.removeprefix("sha256:")
    shutil.copytree(
        maker.store.root / "objects" / name, folder / "store" / "objects" / name, copy_function=os.link
    )
    made, done = compress(plan, folder / "store", folder)
    if made is None:
        raise RowError(f"our own step failed with {done.code}\n{done.errors}")
    return done


def _direct(asked: dict[str, Any], folder: Path) -> Watched:
    path = folder / "asked.json"
    path.write_text(json.dumps(asked), encoding="utf-8")
    done = watch([str(compression_python()), str(DIRECT), str(path)], int(asked["threads"]))
    if done.code != 0:
        raise RowError(f"llm-compressor failed with {done.code}\n{done.errors}")
    return done
