"""Contaminated splits: texts that training sees and the proof asks about, in two data sets.

Within one data set it cannot happen: equal prompts share a part, whatever the draw. Two data sets know nothing of each
other, so their texts are compared, white space folded. Pure; no message carries a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from leanmodel_api.errors import Issue
from leanmodel_api.parts import Example

from .datasets import Parts

TAUGHT, HELD = ("train", "validation"), ("fit", "certify", "report", "test")


def folded(example: Example) -> str:
    """Return what is asked as plain text, its white space folded."""
    return " ".join(example.plain().split())


def shared(taught: Iterable[Example], held: Sequence[Example]) -> list[Example]:
    """Return the held-out examples whose text is taught, in their order."""
    known = {folded(example) for example in taught}
    return [example for example in held if folded(example) in known]


def contaminated(taught: Parts, held: Parts) -> list[Example]:
    """Return the examples of the proof's parts in ``held`` whose text stands in a part of ``taught`` that trains."""
    return shared(
        (example for name in TAUGHT for example in getattr(taught, name)),
        [example for name in HELD for example in getattr(held, name)],
    )


def issue(field: str, proof: str, found: Sequence[Example], line: int | None) -> Issue:
    """Return what to say of contaminated data sets.

    Args:
        field: the training data set's place in the manifest, such as ``spec.dataSets[1]``.
        proof: name of the data set of the proof.
        found: its examples that are taught; at least one.
        line: the line of its file where the first of them stands, where it is known.
    """
    where = f", such as line {line} of its file" if line is not None else ""
    many = "1 text" if len(found) == 1 else f"{len(found)} texts"
    return Issue(
        f"{field}.source",
        f"it teaches {many} that data set {proof!r} holds back for the proof{where}: the proof would be of what was learned by heart",
        "take them out of one of the files, or name one data set for both: its parts never share a text",
    )
