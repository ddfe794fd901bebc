"""The protocol behind which every step stands: pure questions before the work, and the work itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from leanmodel_api.errors import InputError, Issue

from .. import memory
from ..batches import MICRO_ANSWERS, MICRO_TOKENS, Row, Rows
from ..shapes import ModelShape

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Task:
    """One step as it stands in the plan, with what is known before it runs.

    Attributes:
        spec: the step's object of the contract (Finetune, Prune …), or None for a fetch.
        field: its place in the manifest, such as ``spec.lean.steps[1]``, for messages.
        shape: the model that comes in.
        seed: the plan's seed.
        rows: the step's data, tokenised and cut; None where it sees none.
        teacher: shape of the model that teaches, where one does.
        tokenizer: kind of the model's tokenizer (``BPE`` …), empty where it is not known yet.
        labels: a classifier's, in the manifest's order.
    """

    spec: Any
    field: str
    shape: ModelShape
    seed: int = 0
    rows: Rows | None = None
    teacher: ModelShape | None = None
    tokenizer: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a step works.

    Attributes:
        source: folder of the model that comes in; never written to.
        target: empty folder that becomes the artifact.
        scratch: folder for checkpoints; survives a kill.
        teacher: folder of the model that teaches, where one does.
        fingerprint: the step's key, held against what a checkpoint was written for.
        progress: told (units done, units in all, a word for people).
    """

    source: Path
    target: Path
    scratch: Path
    teacher: Path | None
    fingerprint: str
    progress: Progress


@dataclass(frozen=True)
class Outcome:
    """What a step did, besides the files that it wrote.

    Attributes:
        modules_changed: modules whose weights are others now.
        detail: its settings and what came of them, in short.
        resumed_at: where it went on after a kill, None where it began.
        figures: what it measured.
        shape: the model that came out, where that could not be known before the work.
    """

    modules_changed: int
    detail: str
    resumed_at: int | None = None
    figures: dict[str, float] = field(default_factory=dict)
    shape: ModelShape | None = None


@dataclass(frozen=True)
class Work:
    """How much a step has to do: operations, bytes that pass through memory or disk, fixed seconds."""

    flops: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0


def checked(task: Task, after: ModelShape, estimate: int) -> int:
    """Return the larger of a step's estimate of memory and that of looking at what it made.

    A step that sees no rows is looked at on the plan's data set all the same.
    """
    # Logits, their log-softmax, and what the loss makes of it.
    return max(estimate, memory.forward_bytes(after, MICRO_TOKENS, MICRO_ANSWERS, 3))


class StepError(InputError):
    """A step could not do its work; the message names the field and what to change."""


class Step(Protocol):
    """A kind of step. All methods but :meth:`run` are pure."""

    @property
    def name(self) -> str:
        """The type, as it stands in the manifest and in reports."""

    @property
    def version(self) -> int:
        """The version of the step's code; raised whenever its result changes."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """The distributions whose versions the result depends on."""

    @property
    def teaches(self) -> bool:
        """Whether a second, frozen model is needed."""

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """Return whether the step sees a data set, and the name that it gives (None: the only one)."""

    def max_length(self, spec: Any) -> int | None:
        """Return the tokens to which rows are cut, None for all."""

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """Return the settings on which the result depends: they enter the key."""

    def issues(self, task: Task) -> list[Issue]:
        """Return what is wrong with the step on this model and data."""

    def after(self, task: Task) -> ModelShape:
        """Return the shape of the model that comes out; where only the work can tell, a guess that errs upwards."""

    def memory(self, task: Task) -> int:
        """Return the estimated peak of memory in bytes."""

    def disk(self, task: Task) -> int:
        """Return the bytes that the step writes: its output and its checkpoints."""

    def work(self, task: Task) -> Work:
        """Return how much there is to do."""

    def run(self, task: Task, place: Place) -> Outcome:
        """Do the work: read ``place.source``, write the artifact's files into ``place.target``."""


class WithoutRows:
    """A step that sees no data."""

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """It sees none."""
        return False, None

    def max_length(self, spec: Any) -> int | None:
        """There are no rows to cut."""
        return None

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All that the manifest says."""
        return dict(spec.model_dump(mode="json", exclude={"type"}, exclude_none=True))


class WithRows:
    """A step that learns or measures on a data set's train part, its rows cut to the step's own length."""

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """The one that the step names, or the only one."""
        return True, spec.data_set

    def max_length(self, spec: Any) -> int | None:
        """The step's own."""
        return int(spec.max_length)


def samples(task: Task) -> tuple[Row, ...]:
    """Return the rows of the train part that a step calibrates or measures on."""
    return task.rows.train[: task.spec.samples] if task.rows is not None else ()
