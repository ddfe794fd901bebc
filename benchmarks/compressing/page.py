"""The page: every row with its figures, the goals, and what is not yet run. Pure."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from typing import Any

from leanmodel_api.report import Estimate

from .goals import NOT_RUN, Goal, goals, of_estimates
from .rows import LARGE, TRAININGS, Row, Subject
from .subjects import PIECE, WINDOW, WINDOWS
from .table import Found, Line

MB, MIB = 1e6, 2**20
TITLES: dict[Subject, str] = {
    "words": "SmolLM2-135M on WikiText-2",
    "sms": "SmolLM2-135M, fine-tuned on the messages",
    "labels": "MiniLM with a classification head, on the messages",
}
BEST = 3
LEAST_KEPT = 0.97
COMMON = ("bytes", "× large", "parameters", "speed × large", "seconds", "peak", "estimated")


def page(found: Found, loaded: Sequence[str], tried: int | None) -> str:
    """Return the whole page.

    Args:
        found: what the rows gave.
        loaded: rows that vLLM loaded and answered with, by the phase `load`.
        tried: examples that a try was shortened to; None for a run as published.
    """
    dates = sorted({line.date for line in found.lines.values()} - {""})
    days = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else datetime.date.today().isoformat()
    direct = list(found.direct.values())
    lines = [
        "# Every technique, alone and healed", "",
        f"{days}, `make bench-compression`, {os.cpu_count()} cores, {platform.machine()}, one thread. "
        "95% intervals in brackets.",
    ]  # fmt: skip
    if tried is not None:
        lines += ["", f"**A try with at most {tried} examples: no figure here counts.**"]
    lines += ["", "## Goals", "", "| goal | found | |", "|---|---|---|"]
    lines += [goal.line() for goal in [*goals(found), of_estimates(found), of_direct(direct)]]
    lines += ["", *HOW_TO_READ]
    for subject, title in TITLES.items():
        lines += ["", f"## {title}", "", *table(found, subject)]
        if subject != "words":
            lines += ["", best(found, subject), *trivial(found, subject)]
    if loaded:
        lines += ["", f"Loaded by vLLM as they are, and answered: {'; '.join(loaded)}."]
    lines += ["", "## Beside llm-compressor itself", "", *beside(direct), ""]
    return "\n".join(lines)


HOW_TO_READ = [
    "## How to read it", "",
    f"- *Perplexity* is per token of SmolLM2's tokenizer on WikiText-2's tokenised release (`<unk>` and `@-@` as they stand), the first {WINDOWS} "
    f"windows of {WINDOW} tokens of its test part, each by itself; the windows are resampled. The validation part calibrates "
    f"(64 windows of {PIECE}) and heals (rows that a goal names: {TRAININGS['words'].examples} of them, once; others a quarter of them). "
    "So healing also teaches the release's style: the row *trained* is the same training with nothing compressed, and what a healed row "
    "owes to healing alone is its distance from that one.",
    "- *Quality* on the messages is of the report and the test part, which no step sees: greedy answers of the decoder (computed by "
    "transformers in float32; quantised weights expanded), labels from ONNX Runtime. *Kept* is by the large model's on the same messages.",
    "- *Bytes* and *parameters* are those that the engine loads. *Speed* is measured in vLLM or ONNX Runtime against the large model in the same "
    "run; a row with the shapes of another shares its figure; where nothing but zeros or values differ from the large model there is none to measure.",
    "- *Seconds* are of all steps of the row, *peak* is their largest anonymous memory, *estimated* what `leanmodel estimate` says before any work. Rows marked * "
    "were made beside other work: their seconds are upper bounds.",
    "- The figures themselves, with the day of each row, are in [compression.jsonl](compression.jsonl): a run on another machine goes on from there, "
    "and ratios are by the large model that was made in the same run.",
]  # fmt: skip


def table(found: Found, subject: Subject) -> list[str]:
    """Return a subject's rows, and the names of those that are missing."""
    quality = (
        ("perplexity", "× large")
        if subject == "words"
        else ("balanced accuracy", "F1 on spam", "accuracy kept", "balanced accuracy kept")
    )
    heads = ["row", *quality, *COMMON]
    mine = [row for row in found.rows if row.subject == subject]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [line_of(found, found.lines[row.id]) for row in mine if row.id in found.lines]
    failed = [
        f"{row.name} ({found.errors[row.id].strip().splitlines()[-1]})"
        for row in mine
        if row.id in found.errors
    ]
    missing = [row.name for row in mine if row.id not in found.lines and row.id not in found.errors]
    if failed:
        lines += ["", f"Failed: {'; '.join(failed)}."]
    if missing:
        lines += ["", f"{NOT_RUN.capitalize()}: {'; '.join(missing)}."]
    return lines


def line_of(found: Found, line: Line) -> str:
    """Return a row of a table."""
    row, large = line.row, found.large(line.row.id)
    size = f"{line.bytes / large.bytes:.3f}" if large is not None else "–"
    cells = [
        row.name + ("*" if line.busy else ""), *quality_of(found, row),
        f"{line.bytes / MB:.1f} MB" if line.bytes >= MB else f"{line.bytes / 1e3:.0f} kB", size, f"{line.parameters / 1e6:.1f} M",
        speed_of(found, row), f"{line.seconds:.0f}", f"{line.peak / MIB:.0f} MiB", f"{line.estimated / MIB:.0f} MiB",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def quality_of(found: Found, row: Row) -> list[str]:
    """Return the cells of a row's quality."""
    if row.subject == "words":
        value, ratio = found.perplexity(row.id), found.ratio(row.id)
        return [cell(value, 1), "1" if row.name == LARGE else cell(ratio)]
    figures = found.figures(row.id)
    shares = [found.kept(row.id, metric) for metric in ("ChoiceAccuracy", "BalancedAccuracy")]
    return [
        cell(figures.get("BalancedAccuracy")),
        cell(figures.get("F1")),
        *(["1", "1"] if row.name == LARGE else map(cell, shares)),
    ]


def speed_of(found: Found, row: Row) -> str:
    """Return the cell of a row's speed."""
    if row.name == LARGE:
        rate = next((found.rates[name] for name in found.rates if name == row.id), None)
        unit = "requests/s" if row.subject == "labels" else "tokens/s"
        return f"1 ({rate:.0f} {unit})" if rate is not None else "1"
    if row.like == LARGE:
        return "as large"
    return cell(found.speed(row.id), 2) if found.speed(row.id) is not None else NOT_RUN


def best(found: Found, subject: Subject) -> str:
    """Return the three smallest pipelines that keep what must be kept, in words."""
    made = [
        row.id
        for row in found.rows
        if row.subject == subject and row.kind == "pipeline" and row.id in found.lines
    ]
    good = [
        row
        for row in made
        if (share := found.kept(row, "BalancedAccuracy")) is not None and share.value >= LEAST_KEPT
    ]
    good.sort(key=lambda row: found.lines[row].bytes)
    words = "; ".join(
        f"{found.lines[row].row.name} ({found.lines[row].bytes / MB:.1f} MB)" for row in good[:BEST]
    )
    return f"The best {BEST} pipelines, the smallest that keep {LEAST_KEPT:.0%} of balanced accuracy: {words or 'none yet'}. {len(made)} were tried."


def trivial(found: Found, subject: Subject) -> list[str]:
    """Return what trivial models reach on the same messages."""
    lines = []
    for name, figures in found.baselines.get(subject, {}).items():
        words = f"balanced accuracy {cell(figures['BalancedAccuracy'])}, F1 on spam {cell(figures['F1'])}"
        lines.append(f"*{name}*, fitted on the same train part: {words}.")
    return ["", *lines] if lines else []


def of_direct(direct: Sequence[dict[str, Any]]) -> Goal:
    """Return the goal of the phase `llmcompressor`."""
    text = "time and memory of ours by llm-compressor's called directly, at most 1.05"
    if not direct:
        return Goal(text, "–", None)
    worst = max(max(line["seconds_ratio"], line["memory_ratio"]) for line in direct)
    words = "; ".join(
        f"{line['row']}: {line['seconds_ratio']:.3f} and {line['memory_ratio']:.3f}" for line in direct
    )
    return Goal(text, words, worst <= 1.05)


def beside(direct: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of the phase `llmcompressor`."""
    if not direct:
        return [
            f'{NOT_RUN.capitalize()}: `make bench-compression BENCH_ARGS="--work FOLDER --phase llmcompressor"`, on a machine without other work.'
        ]
    lines = [
        "Whole processes, from start to end, in one run and in turn; ours also checks what it made, hashes it and keeps what resuming needs.", "",
        "| recipe | seconds: ours | direct | ratio | peak: ours | direct | ratio | runs |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for line in direct:
        lines.append(
            f"| {line['row']} | {line['ours_seconds']:.0f} | {line['direct_seconds']:.0f} | {line['seconds_ratio']:.3f} | {line['ours_peak'] / MIB:.0f} MiB "
            f"| {line['direct_peak'] / MIB:.0f} MiB | {line['memory_ratio']:.3f} | {line['runs']} |"
        )
    return lines


def cell(value: Estimate | None, digits: int = 3) -> str:
    """Return a figure with its interval."""
    return (
        "–" if value is None else f"{value.value:.{digits}f} ({value.low:.{digits}f}–{value.high:.{digits}f})"
    )
