"""Techniques of others: each is one file, entered under the entry point ``leanmodel.techniques``.

The entry's name is the step's type in a manifest, its value the file's module, which has

* ``FIELDS``: the step's object of the contract, a :class:`Part` of that name whose ``type`` is that name;
* ``step()``: returns what does the work (``leanmodel_compression.steps.protocol.Step``). It imports what it needs when
  it is called, because the contract is read where there is neither torch nor the compression room.

The schema, the reference, the table of families, a Job's plan and its checks are made from what is entered here and
from our own steps alike.
"""

from __future__ import annotations

import functools
from importlib.metadata import entry_points
from types import ModuleType
from typing import get_args

from .base import Part

GROUP = "leanmodel.techniques"


@functools.cache
def modules() -> tuple[ModuleType, ...]:
    """Return the modules that are entered, by the names of their entries.

    Raises:
        TypeError: one has no fields of its name, or no step.
    """
    found = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        module = entry.load()
        fields = getattr(module, "FIELDS", None)
        if not (isinstance(fields, type) and issubclass(fields, Part) and fields.__name__ == entry.name):
            raise TypeError(f"{GROUP} {entry.name}: {entry.value}.FIELDS must be a Part named {entry.name}")
        kind = fields.model_fields.get("type")
        if kind is None or get_args(kind.annotation) != (entry.name,):
            raise TypeError(f'{GROUP} {entry.name}: {entry.value}.FIELDS needs type: Literal["{entry.name}"]')
        if not callable(getattr(module, "step", None)):
            raise TypeError(f"{GROUP} {entry.name}: {entry.value} has no function step()")
        found.append(module)
    return tuple(found)


def fields() -> tuple[type[Part], ...]:
    """Return the objects of the contract."""
    return tuple(module.FIELDS for module in modules())
