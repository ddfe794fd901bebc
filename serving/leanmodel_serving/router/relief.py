"""Which of the policy's promises is in force in this replica: looks at load and budget, and says what has changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..metrics import Meters
from .gate import Gate
from .pressure import Pressure, Seen
from .snapshot import Snapshot
from .till import Till

log = logging.getLogger("ray.serve")
_GAUGE = "leanmodel_pressure"


class Relief:
    """One per replica: load is each one's own, the budget is everybody's.

    Attributes:
        cause: why the second promise is in force, such as ``budget,queue``; empty while the first one is.
    """

    def __init__(
        self, gate: Gate, till: Till, meters: Meters, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin without pressure.

        Args:
            clock: seconds, never going back.
        """
        self._gate, self._till, self._meters, self._clock = gate, till, meters, clock
        self._pressure = Pressure()
        self.cause = ""

    def look(self, state: Snapshot) -> None:
        """Take in load and budget, under the settings in force."""
        strain = state.settings.pressure if state.relaxed is not None else None
        seen = Seen(self._gate.active, self._gate.waiting, self._till.gone())
        before, self._pressure = self._pressure, self._pressure.after(strain, seen, self._clock())
        self.cause = ",".join(self._pressure.causes)
        if strain is None:
            self._meters.forget(_GAUGE)
        else:
            for cause in strain.model_fields_set & {"budget", "concurrency", "queue"}:
                self._meters.set(_GAUGE, float(cause in self._pressure.held), cause=cause)
        if self._pressure.causes != before.causes:
            log.warning(
                "promise in force: %s (pressure: %s; active=%d waiting=%d budget=%s)",
                state.attribution(True, self.cause)["x-leanmodel-certificate"], self.cause or "none", seen.active,
                seen.waiting, ",".join(f"{gone.money:.3f}/{gone.time:.3f}" for gone in seen.budget) or "none",
            )  # fmt: skip
