"""What the steps of one Job learn from its external teacher: as expected until it is asked, then as answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from leanmodel_api.errors import ManifestError
from leanmodel_api.plan import CompressPlan
from leanmodel_store.artifacts import Store
from leanmodel_store.datasets import Parts

from .asking import Told
from .lessons import Lesson, School


@dataclass
class Taught:
    """The lessons of a Job's steps, by the steps' places in the manifest.

    Attributes:
        plan: it names the teacher, where there is one.
        store: where answers are kept.
        key_file: where the provider's key lies.
        parts: what each step learns.
        unasked: lessons of which something is still to be asked; their parts are as long as they may become.
        figures: of what was asked.
    """

    plan: CompressPlan
    store: Store
    key_file: Path | None
    parts: dict[str, Parts] = field(default_factory=dict)
    unasked: dict[str, Lesson] = field(default_factory=dict)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    def lay_out(self, lessons: Iterable[Lesson | None]) -> None:
        """Take what was answered before, and note what is to be asked. Nothing is asked.

        Raises:
            ManifestError: more has to be asked than may be.
            InputError: too few of the answers can be learned.
        """
        for one in lessons:
            if one is None:
                continue
            school = School(self.plan, self.store)
            if school.known(one):
                self.parts[one.field], self.figures[one.field] = school.teach(one, None, _nobody)
            else:
                self.parts[one.field], self.unasked[one.field] = one.expected(), one
        if self.unasked and (issues := School(self.plan, self.store).refusals([*self.unasked.values()])):
            raise ManifestError(issues)

    def ask(self, told: Told) -> None:
        """Ask for everything that is missing.

        Args:
            told: see :class:`.asking.Asking`.

        Raises:
            InputError, TeacherSilentError: see :meth:`.lessons.School.teach`.
        """
        school = School(self.plan, self.store)
        for place, one in self.unasked.items():
            self.parts[place], self.figures[place] = school.teach(one, self.key_file, told)
        self.unasked.clear()


def _nobody(*_: int) -> None:
    """Listen to nothing: where all is known, nobody is asked."""
