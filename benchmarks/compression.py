"""Every technique, alone and healed, on real models: sizes, quality, speed, time and memory, and the goals beside them.

Phases: `make` compresses and judges (it may run beside other work), `estimate` asks what `leanmodel estimate` says of
what was made, `speed` measures engines against the large model and `llmcompressor` our steps against llm-compressor
called directly (both want the machine alone). What was done is kept in `--work` line by line and in the store there, so
that an interrupted run goes on. docs/results/compression.md is written after every row, and beside it a record of its
figures, with which a run on another machine begins. Run: make bench-compression BENCH_ARGS="--work FOLDER"; one row in minutes, into a page in the
work folder: --rows "words/rtn w4a16" --examples 8.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from compressing import beside, measured, record, speed
from compressing.kept import Lines
from compressing.make import Maker, RowError
from compressing.measured import line_of
from compressing.page import page
from compressing.rows import LARGE, SUBJECTS, Row, rows
from compressing.subjects import Limits, start_plan
from compressing.table import Found

from leanmodel_api.plan import CompressResult
from leanmodel_api.report import Estimate

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "compression.jsonl"
PHASES = ("make", "estimate", "load", "speed", "llmcompressor")
LOADED = ("rtn w4a16 but 6 layers", "width 12.5% healed", "qat w4a16", "qat w8a8", "shared by two healed")
"""What `load` tries where no rows are named: shapes and grids that no other test brings into vLLM."""


class Run:
    """One run of the benchmark: its rows, what is kept, and the page."""

    def __init__(self, options: argparse.Namespace):
        """Take the options of the command."""
        self.options = options
        limits = Limits(int(options.memory * 2**30), options.threads, options.examples)
        self.maker = Maker(options.work, limits)
        self.rows = rows(options.examples)
        self.loads, self.speeds, self.directs, self.estimates = (
            Lines(options.work / f"{name}.jsonl") for name in ("loads", "speeds", "direct", "estimates")
        )
        self.failed = 0

    def wanted(self) -> list[Row]:
        """Return the rows that were named, in order; all where none was."""
        named = self.options.rows
        return [row for row in self.rows if not named or row.id in named or row.subject in named]

    def make(self) -> None:
        """Make and judge the rows that are wanted; where none are named, those that are not recorded yet."""
        recorded = {} if self.options.rows else self.record().lines
        for row in self.wanted():
            if row.id in recorded:
                continue
            self.attempt(row, lambda row=row: self.maker.line(row, make=True))

    def estimate(self) -> None:
        """Ask what the code of today says of the rows that are made."""
        made = [(row, line) for row in self.wanted() if (line := self.maker.line(row)) and "result" in line]
        told = self.maker.foretell([row for row, _ in made])
        for row, line in made:
            self._keep(self.estimates, {"row": row.id, "key": line["key"], "bytes": told[row.id]})

    def load(self) -> None:
        """Load rows in their engine, have them answer, and print what they say."""
        texts = speed.texts_of(self.maker)
        for row in self.wanted():
            if row.subject == "labels" or (not self.options.rows and row.name not in LOADED):
                continue
            self.attempt(row, lambda row=row: self._keep(self.loads, speed.load(self.maker, row, texts)))

    def speed(self) -> None:
        """Measure the speeds that are missing."""
        texts = speed.texts_of(self.maker)
        for subject, timed in speed.to_time(self.wanted()).items():
            large = next(row for row in self.rows if row.subject == subject and row.name == LARGE)
            folder = speed.folder_of(self.maker, large)
            left = [
                row
                for row in timed
                if self.found().speed(row.id) is None and self.maker.line(row) is not None
            ]
            if folder is None or not left:
                continue
            with speed.engine(self.maker, large, folder) as engine:
                for row in left:
                    if self.found().speed(row.id) is None:
                        measured: Callable[[], Any] = lambda row=row, engine=engine: self._keep(  # noqa: E731
                            self.speeds, speed.measure(self.maker, row, engine, texts)
                        )
                        self.attempt(row, measured)

    def llmcompressor(self) -> None:
        """Measure our steps beside llm-compressor itself."""
        for row in self.wanted():
            if row.id in beside.RECIPES:
                plan = self.maker.plan(row)
                if plan is None:
                    raise SystemExit(f"{row.subject}/{LARGE} is not made yet: run the phase make first")
                if self.directs.find(row.name, self.maker.key(plan)) is None:
                    self.attempt(
                        row,
                        lambda row=row: self._keep(
                            self.directs, beside.measure(self.maker, row, self.options.runs)
                        ),
                    )

    def attempt(self, row: Row, work: Callable[[], Any]) -> None:
        """Do a row's work and write the page; a row that fails is told, and the others go on."""
        began = time.monotonic()
        try:
            work()
        except RowError as error:
            self.failed += 1
            print(f"{row.id}: FAILED\n{error}", file=sys.stderr, flush=True)
        else:
            print(f"{time.strftime('%H:%M:%S')} {row.id}: {time.monotonic() - began:.0f} s", flush=True)
        self.write()

    def found(self) -> Found:
        """Return what is there of all rows, as they are defined now: in the record, and over it in the work folder."""
        found = self.record()
        data = {
            subject: next(iter(start_plan(subject, self.maker.limits).data_sets), None)
            for subject in SUBJECTS
        }
        for row in self.rows:
            line = self.maker.line(row)
            if line is not None and "error" in line:
                found.errors[row.id] = str(line["error"])
            elif line is not None:
                made, large = CompressResult.model_validate(line["result"]), self._answers(row)
                estimate = self.estimates.find(row.id, line["key"])
                told = {**line, "foretold": estimate and estimate["bytes"]}
                found.lines[row.id] = line_of(row, made, told, large, data[row.subject])
                self._speed(found, row, made)
                for name, judged in line.get("baselines", {}).items():
                    figures = measured.figures(judged, large, data[row.subject])
                    found.baselines.setdefault(row.subject, {})[name] = figures
            if row.id in beside.RECIPES and (direct := self._direct(row)) is not None:
                found.direct[row.id] = direct
        return found

    def _direct(self, row: Row) -> dict[str, Any] | None:
        plan = self.maker.plan(row, make=False)
        return None if plan is None else self.directs.find(row.name, self.maker.key(plan))

    def _answers(self, row: Row) -> dict[str, Any]:
        """Return what the large model of a row's subject answered."""
        large = next(one for one in self.rows if one.subject == row.subject and one.name == LARGE)
        line = self.maker.line(large)
        assert line is not None, "no row is made before its large model"
        answers: dict[str, Any] = line["judged"]
        return answers

    def record(self) -> Found:
        """Return what is recorded beside the page; nothing in a try, whose figures do not count."""
        if self.options.examples is not None:
            return Found(self.rows)
        return record.read(RECORD, self.rows, self.maker.asked())

    def _speed(self, found: Found, row: Row, made: CompressResult) -> None:
        line = self.speeds.find(row.id, made.artifact.removeprefix("sha256:"))
        if line is not None:
            found.speeds[row.id] = Estimate.model_validate(line["ratio"])
            found.rates[f"{row.subject}/{LARGE}"] = line["large"]

    def write(self) -> None:
        """Write the page and the record: among the results, or the page alone beside the work where it is a try."""
        tried, found = self.options.examples, self.found()
        folder = RECORD.parent if tried is None else self.options.work
        text = page(found, self._loaded(), tried)
        (self.options.out or folder / "compression.md").write_text(text, encoding="utf-8")
        if tried is None and self.options.out is None:
            record.write(RECORD, found, self.maker.asked())

    def _loaded(self) -> list[str]:
        return [row.id for row in self.rows if self._load_line(row) is not None]

    def _load_line(self, row: Row) -> dict[str, Any] | None:
        line = self.maker.line(row)
        if line is None or "result" not in line:
            return None
        return self.loads.find(row.id, str(line["result"]["artifact"]).removeprefix("sha256:"))

    @staticmethod
    def _keep(lines: Lines, line: dict[str, Any] | None) -> None:
        if line is not None:
            lines.add(line)


def main(arguments: Iterable[str] | None = None) -> int:
    """Run a phase and write the page; 1 when a row failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the store and of what is kept")
    parser.add_argument(
        "--phase", choices=[*PHASES, "page"], default="make", help="default: make; page only writes the page"
    )
    parser.add_argument(
        "--rows",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAME,…",
        help="rows, or subjects, to work on",
    )
    parser.add_argument(
        "--examples", type=int, help="a try: so many rows in each training and calibration at most"
    )
    parser.add_argument("--threads", type=int, default=1, help="of every Job and engine")
    parser.add_argument("--memory", type=float, default=6, help="limit of a Job, GiB")
    parser.add_argument("--runs", type=int, default=2, help="of the phase llmcompressor")
    parser.add_argument(
        "--out",
        type=Path,
        help="the page; default: docs/results/compression.md, and in a try the work folder",
    )
    run = Run(parser.parse_args(arguments))
    if unknown := [
        name for name in run.options.rows if name not in {row.id for row in run.rows} | set(SUBJECTS)
    ]:
        parser.error(f"--rows: there is no {unknown[0]!r}; there are {', '.join(row.id for row in run.rows)}")
    if run.options.phase != "page":
        getattr(run, run.options.phase)()
    run.write()
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
