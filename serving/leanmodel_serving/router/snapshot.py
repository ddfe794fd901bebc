"""The settings in force, with all that is derived from them once; swapped as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.policy import Policy
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
        certificate: what the policy's certificate promises, in short; none without one.
    """

    settings: RouterSettings
    decider: Decider | None
    large: Tariff
    lean: Tariff
    policy: str
    certificate: str = "none"

    def attribution(self, promised: bool = True) -> dict[str, str]:
        """Return the headers that name policy and certificate.

        Args:
            promised: whether the certificate covers the answer.
        """
        found = {"x-leanmodel-policy": self.policy} if self.policy else {}
        return {**found, "x-leanmodel-certificate": self.certificate if promised else "none"}

    @classmethod
    def of(cls, settings: RouterSettings) -> Snapshot:
        """Derive the rest of the settings.

        Raises:
            ValueError: the policy asks for what this version does not have.
        """
        decider = Decider(settings.policy) if settings.policy and settings.strategy == "Cascade" else None
        if decider is not None:
            try:
                decider.first("a")
                decider.confidence([-0.1], [[-0.1, -3.0]], "a", "stop", prompt="a")
            except (KeyError, TypeError, IndexError) as error:
                raise ValueError(
                    f"policy: cannot be decided by ({error!r}); calibrate it with this version"
                ) from None
        digest, certificate = "", "none"
        if decider is not None:
            digest, certificate = decider.policy.name, promise(decider.policy)
        lean = Tariff.of(settings.lean) if settings.lean else Tariff()
        short = digest.removeprefix("sha256:")[:12]
        return cls(settings, decider, Tariff.of(settings.large), lean, short, certificate)

    def tariff(self, backend: Backend) -> Tariff:
        """Return the tariff of one of the backends."""
        return self.lean if backend is self.settings.lean else self.large


def promise(policy: Policy) -> str:
    """Return what a policy's certificate promises, for a header; none where it certifies nothing."""
    found = policy.certificate
    if not found.certified:
        return "none"
    return f"retain={found.retain:g}; risk={1 - found.confidence:.4g}; outcome={found.outcome}; n={found.n}"


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
        try:
            stat = self.path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen == self._seen:
                return None
            text = self.path.read_text(encoding="utf-8")
        except OSError:
            self._seen = None  # the very same file that comes back is news
            raise
        self._seen = seen
        return Snapshot.of(RouterSettings.model_validate_json(text))
