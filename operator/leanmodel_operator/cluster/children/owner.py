"""Who a child belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import names


@dataclass(frozen=True)
class Owner:
    """The LeanModel that owns a child.

    Attributes:
        queue: its label kueue.x-k8s.io/queue-name, passed on to what Kueue admits.
    """

    name: str
    namespace: str
    uid: str
    queue: str = ""

    def reference(self) -> dict[str, Any]:
        """Return the owner reference."""
        return names.owner(self.name, self.uid)

    def queue_label(self) -> dict[str, str]:
        """Return Kueue's label, or nothing."""
        return {names.QUEUE_LABEL: self.queue} if self.queue else {}
