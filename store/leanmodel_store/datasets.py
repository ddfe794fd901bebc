"""Data sets: from a file to the parts that training, calibration and the report each see.

The same code runs in the compress and in the prove Job, so that they agree on who has seen what.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from leanmodel_api.datasets import PARTS, DataSet, Split
from leanmodel_api.errors import InputError, one
from leanmodel_api.parts import Example, Message

from . import sources, templates
from .artifacts import Store
from .split import assign, draw
from .tables import Row, Table, read_rows

__all__ = ["Built", "Parts", "build_examples", "load", "read_rows", "split"]


@dataclass(frozen=True)
class Built:
    """The examples of a data set before they are split.

    Attributes:
        examples: sorted by id.
        prompts: for each example its prompt's digest; differs from the id only where duplicates are kept.
        duplicates_removed: rows left out because another has the same prompt, white space folded.
        conflicts: how many prompts stand there with more than one answer (the most frequent one was kept).
    """

    examples: tuple[Example, ...]
    prompts: tuple[str, ...]
    duplicates_removed: int
    conflicts: int


@dataclass(frozen=True)
class _Filled:
    """A row, its templates filled in."""

    text: str
    answer: str | None
    group: str | None


@dataclass(frozen=True)
class Parts:
    """A data set, split. Each part is in a seeded random order, so that its first n rows are a fair sample.

    Attributes:
        train: for training steps.
        validation: for early stopping.
        fit: the router's confidence is fitted on it.
        certify: the promise is tested on it.
        report: gates and the report's figures come from it.
        test: shown, and nothing is decided on it.
        digest: ``sha256:…`` of ids, prompts, answers and parts.
        duplicates_removed: rows left out as duplicates.
        conflicts: prompts that stood there with more than one answer.
        label_counts: rows per answer over all parts; empty without answers.
        source_digest: digest of the file's artifact.
    """

    train: list[Example]
    validation: list[Example]
    fit: list[Example]
    certify: list[Example]
    report: list[Example]
    test: list[Example]
    digest: str
    duplicates_removed: int
    conflicts: int
    label_counts: dict[str, int]
    source_digest: str = ""

    def counts(self) -> dict[str, int]:
        """Return the number of examples by part."""
        return {name: len(getattr(self, name)) for name in PARTS}


def load(data_set: DataSet, base_dir: Path, store: Store, *, field: str | None = None) -> Parts:
    """Fetch, read, check and split a data set.

    Args:
        data_set: what the manifest says.
        base_dir: folder that relative ``file:`` addresses start from.
        store: where the file is kept.
        field: the manifest's field, such as ``spec.dataSets[0]``; default: with the name as index.

    Raises:
        InputError: the file is not there or malformed, a column is missing, an answer is not among the
            choices, all answers are one, or a part would be empty.
    """
    field = field or f"spec.dataSets[{data_set.name}]"
    entry = sources.fetch(data_set.source, base_dir, store, kind="data", field=f"{field}.source")
    table = read_rows((entry.path / entry.files[0].name).read_bytes(), data_set.format, field)
    built = build_examples(table, data_set, field)
    return split(built, data_set.split, field, source_digest=entry.digest)


def line_of(data_set: DataSet, base_dir: Path, store: Store, example: Example, *, field: str) -> int | None:
    """Return the line of a data set's file where an example's prompt stands first; None when it is not there."""
    entry = sources.fetch(data_set.source, base_dir, store, kind="data", field=f"{field}.source")
    table = read_rows((entry.path / entry.files[0].name).read_bytes(), data_set.format, field)
    prompt = data_set.prompt
    template = templates.parse(prompt.user if prompt.user is not None else prompt.text or "", field)
    wanted = example.id.partition("-")[0]
    return next(
        (row.line for row in table.rows if _prompt_digest(data_set, _filled(template, row, field)) == wanted),
        None,
    )


def build_examples(table: Table, data_set: DataSet, field: str) -> Built:
    """Turn rows into examples: templates filled in, answers checked, duplicates and surplus rows left out.

    Which of several duplicates is kept does not depend on their order: the most frequent answer, then the
    first by the alphabet.

    Raises:
        InputError: as in :func:`load`.
    """
    prompt = data_set.prompt
    prompt_field = f"{field}.prompt.{'user' if prompt.user is not None else 'text'}"
    template = templates.parse(prompt.user if prompt.user is not None else prompt.text or "", prompt_field)
    templates.require_columns(template, table.columns, prompt_field)
    if not template.columns:
        raise one(
            InputError, prompt_field, "it names no column: all prompts would be one", "write {column} in it"
        )
    answer = templates.parse(data_set.answer, f"{field}.answer") if data_set.answer is not None else None
    if answer is not None:
        templates.require_columns(answer, table.columns, f"{field}.answer")
    group = templates.parse(data_set.group, f"{field}.group") if data_set.group is not None else None
    if group is not None:
        templates.require_columns(group, table.columns, f"{field}.group")
    alike: dict[str, list[_Filled]] = {}
    wrong: list[tuple[int, str]] = []
    for row in table.rows:
        text = _filled(template, row, prompt_field)
        wanted = _answer(answer, row, f"{field}.answer")
        if wanted is not None and data_set.choices is not None and wanted not in data_set.choices:
            wrong.append((row.line, wanted))
        kind = _answer(group, row, f"{field}.group")
        alike.setdefault(_prompt_digest(data_set, text), []).append(_Filled(text, wanted, kind))
    _check_choices(wrong, data_set, field)
    built = _examples(alike, data_set)
    if answer is not None:
        _check_classes({example.answer for example in built.examples}, len(built.examples), field)
    return built


def split(built: Built, shares: Split, field: str, *, source_digest: str = "") -> Parts:
    """Draw the parts, stratified by answer.

    Raises:
        InputError: the shares are more than 1 together, or a part with a share would get no row.
    """
    wanted = [Fraction(str(getattr(shares, name))) for name in PARTS]
    if sum(wanted) > 1:
        total = float(sum(wanted))
        raise one(InputError, f"{field}.split", f"the shares add up to {total:g}", "make it 1 at most")
    examples = built.examples
    ids = [example.id for example in examples]
    # Free text has about as many answers as rows; the draw is then a plain one, and as fair.
    strata = [example.answer or "" for example in examples]
    dealt = assign(ids, built.prompts, strata, wanted, shares.seed)
    parts: dict[str, list[Example]] = {name: [] for name in PARTS}
    for example, part in zip(examples, dealt, strict=True):
        if part < len(PARTS):
            parts[PARTS[part]].append(example)
    for name, share in zip(PARTS, wanted, strict=True):
        if share > 0 and not parts[name]:
            raise one(
                InputError, f"{field}.split.{name}",
                f"the part gets none of the {len(examples)} rows at a share of {getattr(shares, name)}",
                f"give the data set at least {-(-1 // share)} different rows, or set the share to 0",
            )  # fmt: skip
        parts[name].sort(key=lambda example: draw(shares.seed, "order", example.id))
    counts = Counter(example.answer for example in examples if example.answer is not None)
    return Parts(
        **parts, digest=_parts_digest(parts), duplicates_removed=built.duplicates_removed,
        conflicts=built.conflicts, label_counts=dict(sorted(counts.items())), source_digest=source_digest,
    )  # fmt: skip


def _filled(template: templates.Template, row: Row, field: str) -> str:
    missing = [column for column in template.columns if column not in row.values]
    if missing:
        raise one(
            InputError, field, f"line {row.line} has no text in column {missing[0]}",
            "fill it in (it is missing, null or nested), or leave the line out",
        )  # fmt: skip
    text = template.render(row.values)
    if not text.strip():
        raise one(InputError, field, f"line {row.line} makes an empty text", "fill it in, or leave it out")
    return text


def _answer(template: templates.Template | None, row: Row, field: str) -> str | None:
    return None if template is None else _filled(template, row, field).strip()


def _check_choices(wrong: Sequence[tuple[int, str]], data_set: DataSet, field: str) -> None:
    if not wrong:
        return
    line, found = wrong[0]
    more = f", and {len(wrong) - 1} more lines have such answers" if len(wrong) > 1 else ""
    raise one(
        InputError, f"{field}.choices",
        f"line {line} has the answer {found!r}, which is not among {', '.join(data_set.choices or [])}{more}",
        "add it to the choices, or correct the line",
    )  # fmt: skip


def _check_classes(answers: set[str | None], rows: int, field: str) -> None:
    if len(answers) == 1:
        raise one(
            InputError, f"{field}.answer", f"all {rows} rows have the one answer {next(iter(answers))!r}",
            "name a column with at least two different answers: a model cannot be proven on one",
        )  # fmt: skip


def _prompt_digest(data_set: DataSet, text: str) -> str:
    """Return the digest of a prompt, its white space folded and its case kept."""
    kind = "user" if data_set.prompt.user is not None else "text"
    words = [kind, data_set.prompt.system or "", " ".join(text.split())]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]


def _examples(alike: dict[str, list[_Filled]], data_set: DataSet) -> Built:
    removed, conflicts = 0, 0
    made: list[tuple[str, Example]] = []
    for digest, rows in alike.items():
        counts = Counter(row.answer for row in rows)
        conflicts += len(counts) > 1
        kept = sorted(
            rows, key=lambda row: (-counts[row.answer], row.answer or "", row.text, row.group or "")
        )
        if data_set.drop_duplicates:
            removed += len(kept) - 1
            kept = kept[:1]
        for number, row in enumerate(kept):
            id = digest if number == 0 else f"{digest}-{number + 1}"
            made.append((digest, _example(id, row, data_set)))
    if data_set.max_rows is not None and len(made) > data_set.max_rows:
        made.sort(key=lambda pair: draw(data_set.split.seed, "keep", pair[1].id))
        made = made[: data_set.max_rows]
    made.sort(key=lambda pair: pair[1].id)
    prompts, examples = tuple(digest for digest, _ in made), tuple(example for _, example in made)
    return Built(examples, prompts, removed, conflicts)


def _example(id: str, row: _Filled, data_set: DataSet) -> Example:
    if data_set.prompt.user is None:
        return Example(id=id, messages=None, text=row.text, answer=row.answer, group=row.group)
    system = data_set.prompt.system
    head = [Message(role="system", content=system)] if system is not None else []
    messages = [*head, Message(role="user", content=row.text)]
    return Example(id=id, messages=messages, text=None, answer=row.answer, group=row.group)


def _parts_digest(parts: dict[str, list[Example]]) -> str:
    sha = hashlib.sha256()
    for name in PARTS:
        for example in parts[name]:
            # A data set without groups has the digest that it had before there were any.
            text = example.model_dump_json(exclude={"group"} if example.group is None else None)
            sha.update(f"{name} {text}\n".encode("utf-8", "surrogatepass"))
    return "sha256:" + sha.hexdigest()
