"""The settings in force, with all that is derived from them once; swapped as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leanmodel_api.policy import Policy
from leanmodel_api.router import Backend, RouterSettings
from leanmodel_api.routing_policy import RoutingPolicy
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
        relaxed: decides by the policy's second point; None where there is none, or nothing puts it into force.
        second: what that promises, in short.
    """

    settings: RouterSettings
    decider: Decider | None
    large: Tariff
    lean: Tariff
    policy: str
    certificate: str = "none"
    relaxed: Decider | None = None
    second: str = "none"

    def attribution(self, promised: bool = True, pressure: str = "") -> dict[str, str]:
        """Return the headers that name policy and certificate.

        Args:
            promised: whether the certificate covers the answer.
            pressure: why the second promise is in force; empty where the first is.
        """
        found = {"x-leanmodel-policy": self.policy} if self.policy else {}
        certificate = self.second if pressure else self.certificate
        return {**found, "x-leanmodel-certificate": certificate if promised else "none"}

    def by(self, pressure: str) -> Decider | None:
        """Return what decides: by the second point under pressure, else by the first."""
        return self.relaxed if pressure and self.relaxed is not None else self.decider

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
        relaxed = _relaxed(settings) if decider is not None else None
        second = promise(relaxed.policy) if relaxed is not None else "none"
        lean = Tariff.of(settings.lean) if settings.lean else Tariff()
        short = digest.removeprefix("sha256:")[:12]
        return cls(settings, decider, Tariff.of(settings.large), lean, short, certificate, relaxed, second)

    def tariff(self, backend: Backend) -> Tariff:
        """Return the tariff of one of the backends."""
        return self.lean if backend is self.settings.lean else self.large


def _relaxed(settings: RouterSettings) -> Decider | None:
    """What decides under pressure; None where nothing is pressure, or there is no second point to go to."""
    policy = settings.policy
    if settings.pressure is None or not isinstance(policy, RoutingPolicy):
        return None
    found = policy.relaxed()
    return None if found is None else Decider(found)


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
