"""Errors that a user reads: each names the field, what was found there, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Issue:
    """One thing wrong with an input.

    Attributes:
        field: the path in the manifest (or plan), such as ``spec.lean.steps[1].groupSize``.
        found: what stands there, in words.
        advice: what to write instead.
    """

    field: str
    found: str
    advice: str

    def __str__(self) -> str:
        """Return the issue as one line for a terminal, a log or a condition's message."""
        return f"{self.field}: {self.found}; {self.advice}" if self.advice else f"{self.field}: {self.found}"


class LeanModelError(Exception):
    """Base of the errors that our own code raises for its user; ``exit_code`` is what a Job ends with."""

    exit_code = 1


class InputError(LeanModelError):
    """The input (manifest, data set, weights, plan) is at fault; nothing was changed."""

    exit_code = 2

    def __init__(self, issues: Iterable[Issue] | Issue):
        """Keep the issues (one or many) and make them the message, a line each."""
        self.issues = (issues,) if isinstance(issues, Issue) else tuple(issues)
        super().__init__("\n".join(str(issue) for issue in self.issues))


class ManifestError(InputError):
    """The manifest breaks the schema or one of its cross-field rules."""


class RefusedError(InputError):
    """The machine cannot do what is asked (memory, disk, port): refused before any work."""

    exit_code = 3


def one(error: type[InputError], field: str, found: str, advice: str) -> InputError:
    """Build an ``error`` with a single issue."""
    return error(Issue(field, found, advice))
