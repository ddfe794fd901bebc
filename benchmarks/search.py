"""How long a search takes until it has found, against trying all of its candidates; and whether what it found passes.

Both start from the same large model in a store of their own. Trying all trains every candidate to the end, one Job each:
with what they share found in the store, as a person would who tries one after the other, and without, as the sum of all
their steps. Then every artifact is judged on the validation part and on the report and test parts, which the search does
not see. What was done is kept in --work, so an interrupted run goes on. Writes search.md there.
Run: make bench-search BENCH_ARGS="--work FOLDER"; in minutes: --subject labels --examples 64 --candidates 4
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from compressing.subjects import Limits, start_plan

from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.search import SearchFound
from leanmodel_cli.processes import compression_python

JUDGE = Path(__file__).parent / "searching" / "judge.py"
TRAINING = {
    "sms": {"epochs": "5", "learningRate": "0.0003", "batchSize": 8, "maxImbalance": 5},
    "labels": {"epochs": "3", "learningRate": "0.00005", "batchSize": 16, "maxLength": 128},
}
"""As in the quickstart's manifests."""
VALIDATION = "0.15"
"""Share of the rows that the search judges on."""


class Bench:
    """One run: its folder, its plans, what is kept."""

    def __init__(self, options: argparse.Namespace):
        """Take the options of the command."""
        self.options, self.work = options, options.work.absolute()
        self.work.mkdir(parents=True, exist_ok=True)
        limits = Limits(int(options.memory * 2**30), options.threads, options.examples)
        start = start_plan(options.subject, limits)
        data = start.data_sets[0]
        split = data.split.model_copy(update={"validation": VALIDATION})
        self.start = start.model_copy(update={"data_sets": [data.model_copy(update={"split": split})]})

    def job(self, name: str, plan: CompressPlan, store: Path) -> tuple[CompressResult | None, float, str]:
        """Run a compress Job, or take its kept result; return it, its wall time in seconds, and its last words."""
        kept = self.work / f"{name}.json"
        if not kept.exists():
            place, result = self.work / "job", self.work / "job" / "result.json"
            place.mkdir(exist_ok=True)
            result.unlink(missing_ok=True)
            (place / "plan.json").write_text(plan.to_json(), encoding="utf-8")
            command = [
                str(compression_python()),
                "-m",
                "leanmodel_compression",
                "--plan",
                str(place / "plan.json"),
            ]
            command += ["--store", str(store), "--result", str(result)]
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            began = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            line: dict[str, Any] = {"seconds": time.monotonic() - began, "load": os.getloadavg()[0]}
            line["words"] = done.stderr.strip()[-2000:]
            line["result"] = json.loads(result.read_text(encoding="utf-8")) if done.returncode == 0 else None
            kept.write_text(json.dumps(line), encoding="utf-8")
        line = json.loads(kept.read_text(encoding="utf-8"))
        made = CompressResult.model_validate(line["result"]) if line["result"] else None
        return made, line["seconds"], line["words"]

    def lean(self, large: CompressResult, **fields: Any) -> CompressPlan:
        """Return a plan that starts from the large model."""
        known = self.start.model_dump(by_alias=True, exclude_none=True, exclude={"source", "finetune"})
        both = {"role": "Lean", "base": large.artifact, "teacher": large.artifact}
        return CompressPlan.model_validate({**known, **both, **fields})

    def wanted(self) -> dict[str, Any]:
        """Return the search."""
        training: dict[str, Any] = dict(TRAINING[self.options.subject])
        if self.options.examples is not None:
            training["maxExamples"] = self.options.examples
        return {
            "budget": {"sizeRatio": str(self.options.budget)}, "promise": {"retain": str(self.options.retain)},
            "training": training, "maxCandidates": self.options.candidates,
        }  # fmt: skip

    def run(self) -> int:
        """Search, try all, judge, and write the page; 1 where the search found nothing, or what does not pass."""
        first, other = self.work / "search", self.work / "all"
        large, _, words = self.job("large", self.start, first)
        if large is None:
            raise SystemExit(f"the large model was not made:\n{words}")
        if not other.exists():
            shutil.copytree(first, self.work / "all.new")
            (self.work / "all.new").rename(other)
        found, until, words = self.job("found", self.lean(large, search=self.wanted()), first)
        if found is None or found.search is None:
            raise SystemExit(f"nothing was found:\n{words}")
        tried = {
            one.name: self.job(
                f"all-{one.name}",
                self.lean(large, steps=[step.model_dump(by_alias=True) for step in one.steps]),
                other,
            )
            for one in found.search.frontier
        }
        made = {name: result for name, (result, *_) in tried.items() if result is not None}
        judged = self.judge([large.artifact, *(result.artifact for result in made.values())], other)
        text = page(found.search, large, made, judged, until, {name: line[1] for name, line in tried.items()})
        (self.work / "search.md").write_text(text, encoding="utf-8")
        print(text)
        kept = judged[found.artifact]["validation"]["value"] / judged[large.artifact]["validation"]["value"]
        return 0 if kept >= self.options.retain and found.bytes <= found.search.budget_bytes else 1

    def judge(self, artifacts: list[str], store: Path) -> dict[str, Any]:
        """Return every artifact's quality on both sides."""
        asked, told = self.work / "judge.json", self.work / "judged.json"
        asked.write_text(
            json.dumps(
                {"plan": json.loads(self.start.to_json()), "store": str(store), "artifacts": artifacts}
            )
        )
        subprocess.run([str(compression_python()), str(JUDGE), str(asked), str(told)], check=True)
        return dict(json.loads(told.read_text(encoding="utf-8")))


def page(
    found: SearchFound, large: CompressResult, made: dict[str, CompressResult], judged: dict[str, Any], until: float,
    tried: dict[str, float],
) -> str:  # fmt: skip
    """Return the page in Markdown.

    Args:
        found: what the search measured.
        large: the large model.
        made: every candidate trained to the end, by name.
        judged: quality by artifact and side.
        until: wall time of the search's Job in seconds.
        tried: wall time of each candidate's Job in seconds, with what they share found in the store.
    """
    alone = sum(step.seconds for result in made.values() for step in result.steps)
    shared = sum(tried.values())
    base = {side: judged[large.artifact][side]["value"] for side in ("validation", "held")}
    lines = [
        f"Within {found.budget_bytes / 1e6:.1f} MB of {found.large_bytes / 1e6:.1f} MB, at least {found.retain:g} of the large "
        f"model's {found.metric}: {found.chosen}, found in {until:.0f} s. Trying all {len(tried)}: {shared:.0f} s with what they "
        f"share made once (the search took {until / shared:.2f} of it), {alone:.0f} s of steps without ({until / alone:.2f}).",
        "",
        f"The large model: {base['validation']:.4f} on {judged[large.artifact]['validation']['n']} rows of the validation part, "
        f"{base['held']:.4f} on {judged[large.artifact]['held']['n']} of the report and test parts, which no candidate was "
        "chosen by.",
        "",
        "| candidate | MB | search: rung, outcome | kept in the search | trained to the end: kept, validation | report and test | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found.frontier:
        result, seen = made.get(one.name), one.retained
        size = (result.bytes if result else one.estimated_bytes) / 1e6
        sides = [
            f"{judged[result.artifact][side]['value'] / base[side]:.4f}" if result else "failed"
            for side in ("validation", "held")
        ]
        kept = f"{seen.value:.4f} ({seen.low:.4f} to {seen.high:.4f})" if seen else "–"
        lines.append(
            f"| {one.name} | {size:.1f} | {one.rung}, {one.outcome} | {kept} | {sides[0]} | {sides[1]} | {tried[one.name]:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of this run; an interrupted one goes on"
    )
    parser.add_argument("--subject", choices=("sms", "labels"), default="sms", help="SmolLM2, or MiniLM")
    parser.add_argument("--budget", type=float, default=0.6, help="share of the large model's bytes")
    parser.add_argument("--retain", type=float, default=0.97, help="share of its quality")
    parser.add_argument("--candidates", type=int, default=16, help="candidates at most")
    parser.add_argument(
        "--examples", type=int, help="train on so many examples at most: for a try in minutes"
    )
    parser.add_argument("--memory", type=float, default=6, help="GiB that a Job may use")
    parser.add_argument("--threads", type=int, default=1, help="threads of a Job")
    return Bench(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
