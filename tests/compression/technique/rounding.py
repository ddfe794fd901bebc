"""A technique as a user adds one: weights keep so many bits of their mantissa. One file, and one entry point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from leanmodel_api.base import Part


class Rounding(Part):
    """Round every weight of the linear layers to a few bits of mantissa; the file stays as large."""

    type: Literal["Rounding"]
    bits: int = Field(4, ge=1, le=7, description="Bits of the mantissa that stay. Default 4.")


FIELDS = Rounding


def step() -> Any:
    """Return what does the work."""
    from leanmodel_api.errors import Issue
    from leanmodel_compression import memory
    from leanmodel_compression.shapes import ModelShape
    from leanmodel_compression.steps import sparse
    from leanmodel_compression.steps.protocol import Outcome, Place, Task, Work, checked

    class Step:
        """Rounds."""

        name = "Rounding"
        version = 1
        libraries = ("torch",)
        teaches = False

        def data_set(self, spec: Any) -> tuple[bool, str | None]:
            """It sees none."""
            return False, None

        def max_length(self, spec: Any) -> int | None:
            """There are no rows to cut."""
            return None

        def settings(self, spec: Any) -> Mapping[str, Any]:
            """How many bits."""
            return {"bits": spec.bits}

        def issues(self, task: Task) -> list[Issue]:
            """Say that so small a model is not worth it."""
            small = task.shape.layers < 2
            return [Issue(f"{task.field}.bits", "one layer", "name a deeper model")] if small else []

        def after(self, task: Task) -> ModelShape:
            """The same."""
            return task.shape

        def memory(self, task: Task) -> int:
            """The stored weights twice."""
            return checked(task, task.shape, memory.loaded_bytes(task.shape))

        def disk(self, task: Task) -> int:
            """The artifact."""
            return 2 * task.shape.parameters

        def work(self, task: Task) -> Work:
            """Reading and writing."""
            return Work(bytes=8.0 * task.shape.parameters)

        def run(self, task: Task, place: Place) -> Outcome:
            """Round, and write."""
            import torch

            tensors, linears = sparse.read(place), task.shape.linears()[:-1]
            for linear in linears:
                bits = tensors[f"{linear.name}.weight"].view(torch.int16)
                bits &= -(1 << (7 - task.spec.bits))
            sparse.write(tensors, place)
            return Outcome(len(linears), f"{task.spec.bits} bits")

    return Step()
