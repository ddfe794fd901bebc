"""The quickstart with three seeds: every figure with its interval, written to docs/results/quickstart.md.

Each seed draws its own split and trains its own models. The runs share the store (the fetched weights), and
nothing else. Run: make bench-quickstart BENCH_ARGS="--work FOLDER"; --test 0.2 asks about more of the rows
that the quickstart leaves unused, where narrow intervals are worth the time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "examples" / "quickstart"
METRICS = ("BalancedAccuracy", "F1")
PARTS = ("certify", "report", "test")


def manifest(seed: int, folder: Path, test: str | None) -> Path:
    """Write the quickstart's manifest with another seed (and test part) and return its path."""
    document = yaml.safe_load((QUICKSTART / "leanmodel.yaml").read_text())
    document["metadata"]["name"] += f"-seed{seed}"
    document["spec"]["seed"] = seed
    data = document["spec"]["dataSets"][0]
    data["split"] |= {"seed": seed, "test": test or data["split"]["test"]}
    data["source"]["uri"] = f"file:{QUICKSTART / 'data' / 'sms.tsv'}"
    path = folder / f"seed{seed}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def one(seed: int, folder: Path, port: int, test: str | None) -> dict[str, Any]:
    """Run one seed from the manifest to the settled endpoint; return its report and times (seconds)."""
    command = [sys.executable, "-m", "leanmodel_cli.main"]
    path = manifest(seed, folder, test)
    name = yaml.safe_load(path.read_text())["metadata"]["name"]
    began = time.monotonic()
    up = subprocess.run([*command, "up", "-f", str(path), "--detach", "--port", str(port)], check=False)
    took = time.monotonic() - began
    try:
        text = subprocess.run(
            [*command, "report", name, "-o", "json"], check=True, capture_output=True, text=True
        ).stdout
    finally:
        subprocess.run([*command, "down", name], check=True)
    report: dict[str, Any] = json.loads(text)
    report["seconds"], report["exit"], report["seed"] = took, up.returncode, seed
    return report


def figure(report: dict[str, Any], model: str, metric: str, part: str) -> dict[str, float] | None:
    """Return one model's figure on one part, with its interval."""
    for row in report["models"]:
        if row["name"] == model and row["part"] == part:
            found: dict[str, float] | None = row["figures"].get(metric)
            return found
    return None


def cell(estimate: dict[str, float] | None) -> str:
    """Return a figure with its interval for a table."""
    return (
        "–" if estimate is None else f"{estimate['value']:.4f} ({estimate['low']:.4f}–{estimate['high']:.4f})"
    )


def markdown(reports: list[dict[str, Any]]) -> str:
    """Return the results as a page."""
    today = datetime.date.today().isoformat()
    lines = [
        "# The quickstart, seed by seed", "",
        f"{today}, `make bench-quickstart`, {os.cpu_count()} cores, {platform.machine()}. Each seed draws its own split and "
        "trains its own models. 95% intervals in brackets. *test* is the part that nothing else saw.", "",
    ]  # fmt: skip
    seeds = [str(report["seed"]) for report in reports]
    lines += [
        "| figure | " + " | ".join(f"seed {seed}" for seed in seeds) + " |",
        "|---|" + "---|" * len(seeds),
    ]

    def row(title: str, cells: list[str]) -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    row("verdict", [report["verdict"] for report in reports])
    row(
        "records: certify, report, test",
        [", ".join(str(report["parts"][part]) for part in PARTS) for report in reports],
    )
    row("bytes, lean by large", [f"{report['sizeRatio']['value']:.4f}" for report in reports])
    row("requests/s, lean by large, one run", [cell(report["throughputRatio"]) for report in reports])
    row("requests/s, large", [cell(report["speed"]["large"]["requestsPerSecond"]) for report in reports])
    for part in ("report", "test"):
        names = dict.fromkeys(
            model["name"] for report in reports for model in report["models"] if model["part"] == part
        )
        for metric in METRICS:
            for name in names:
                cells = [cell(figure(report, name, metric, part)) for report in reports]
                if any(text != "–" for text in cells):
                    row(f"{metric}, {name}, {part}", cells)
    row("quality retained by the pair, report", [cell(report["qualityRetained"]) for report in reports])
    row("quality retained by the pair, test", [retained(report, "test") for report in reports])
    row("sent on to the large model", [f"{report['evaluation']['large_share']:.4f}" for report in reports])
    row(
        "certified",
        [
            f"{report['policy']['certificate']['certified']}, p={report['policy']['certificate']['p_value']:.3g}, n={report['policy']['certificate']['n']}"
            for report in reports
        ],
    )
    row("promise held on test", [str(report.get("promiseHeldOnTest")) for report in reports])
    row("avoidable cost", [cell(report.get("saving")) for report in reports])
    row("minutes from command to settled", [f"{report['seconds'] / 60:.1f}" for report in reports])
    lines += ["", means(reports), ""]
    return "\n".join(lines)


def means(reports: list[dict[str, Any]]) -> str:
    """Return the means over the seeds in one paragraph."""

    def of(model: str, metric: str, part: str) -> float:
        found = [figure(report, model, metric, part) for report in reports]
        return mean(estimate["value"] for estimate in found if estimate is not None)

    said = [f"requests/s ratio {mean(report['throughputRatio']['value'] for report in reports):.2f}"]
    for part in ("report", "test"):
        kept = mean(float(text) for report in reports if (text := retained(report, part)) != "–")
        said.append(f"quality retained on {part} {kept:.4f}")
        said.append(
            f"F1 on {part}: pair {of('pair', 'F1', part):.4f}, tfidf-logreg {of('tfidf-logreg', 'F1', part):.4f}"
        )
    said.append(f"sent on {mean(report['evaluation']['large_share'] for report in reports):.4f}")
    return f"Means over the seeds: {'; '.join(said)}."


def retained(report: dict[str, Any], part: str) -> str:
    """Return the pair's quality by the large model's on a part."""
    pair, large = (figure(report, name, report["metric"], part) for name in ("pair", "large"))
    return "–" if pair is None or large is None else f"{pair['value'] / large['value']:.4f}"


def main() -> int:
    """Run the seeds and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--test", help="share of the rows in the test part; default: the quickstart's")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "quickstart.md")
    parser.add_argument("--work", type=Path, required=True, help="folder for manifests and reports")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    reports = []
    for seed in arguments.seeds:
        kept = arguments.work / f"report{seed}.json"
        report = (
            json.loads(kept.read_text())
            if kept.exists()
            else one(seed, arguments.work, arguments.port, arguments.test)
        )
        kept.write_text(json.dumps(report))
        reports.append(report)
        arguments.out.write_text(markdown(reports))
    return 0


if __name__ == "__main__":
    sys.exit(main())
