"""The settings in force, with all that is derived from them once; swapped as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.router import Backend, RouterSettings
from leanmodel_routing.decide import Decider

from .cost import Tariff


@dataclass(frozen=True)
class Snapshot:
    """One state of the router.

    Attributes:
        settings: as read.
        decider: decides by the policy; None where the strategy is fixed.
        large: the large model's tariff.
        lean: the lean model's tariff, when there is one.
        policy: short digest of the policy, for a header.
    """

    settings: RouterSettings
    decider: Decider | None
    large: Tariff
    lean: Tariff
    policy: str

    @classmethod
    def of(cls, settings: RouterSettings) -> Snapshot:
        """Derive the rest of the settings.

        Raises:
            ValueError: the policy asks for what this version does not have.
        """
        decider = Decider(settings.policy) if settings.policy and settings.strategy == "Cascade" else None
        if decider is not None:
            try:
                decider.confidence([-0.1], [[-0.1, -3.0]], "a", "stop", prompt="a")
            except (KeyError, TypeError, IndexError) as error:
                raise ValueError(
                    f"policy: cannot be decided by ({error!r}); calibrate it with this version"
                ) from None
        digest = (
            settings.policy.digest or settings.policy.computed_digest() if decider and settings.policy else ""
        )
        lean = Tariff.of(settings.lean) if settings.lean else Tariff()
        return cls(settings, decider, Tariff.of(settings.large), lean, digest.removeprefix("sha256:")[:12])

    def tariff(self, backend: Backend) -> Tariff:
        """Return the tariff of one of the backends."""
        return self.lean if backend is self.settings.lean else self.large


class SettingsFile:
    """Reads a settings file again when it changed."""

    def __init__(self, path: Path) -> None:
        """Watch ``path``; nothing is read yet."""
        self.path = path
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> Snapshot | None:
        """Return the new state when the file is another one than at the last call, else None.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no :class:`RouterSettings`; said once per version of the file.
        """
        stat = self.path.stat()
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen == self._seen:
            return None
        text = self.path.read_text(encoding="utf-8")
        self._seen = seen
        return Snapshot.of(RouterSettings.model_validate_json(text))
