"""All monitors of one policy as one state: what the router folds its tallies into, and asks for alarms.

A certificate's label-free bound and its scores are watched; with rules for groups each certified group's bound is
watched apart, since a mean over all groups would hide one of them. The level is shared evenly, so that it is the
chance of ever a false alarm of any of them (beside the chance that a certified bound is itself wrong).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from leanmodel_api.errors import InputError, one
from leanmodel_api.policy import Policy
from leanmodel_api.routing_policy import RoutingPolicy
from leanmodel_routing.monitors.label_free import LabelFreeMonitor
from leanmodel_routing.monitors.score_drift import ScoreDriftMonitor
from leanmodel_routing.monitors.tally import Counts, Tally

ALL = ""
"""Key of the tally and the monitor of requests without a group's rule."""


class Watch(BaseModel):
    """The monitors of one policy with their state: frozen, plain JSON. `fold` gives the next one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    policy: str = Field(description="Digest of the policy that is watched.")
    edges: tuple[float, ...] = Field(default=(), strict=False, description="Ends of the score bins.")
    label_free: dict[str, LabelFreeMonitor] = Field(
        default_factory=dict, description="By group; the empty name is for all requests together."
    )
    score_drift: ScoreDriftMonitor | None = Field(default=None, description="Over all requests.")

    @classmethod
    def of(cls, policy: Policy, rate: float, level: float) -> Watch:
        """A fresh watch. `rate`: usual share of accepted requests shadowed. `level`: chance of ever a false alarm.

        Raises InputError for numbers out of their range.
        """
        for name, value, most in (("rate", rate, 1.0), ("level", level, 0.5)):
            if not 0.0 < value <= most:
                raise one(InputError, name, f"found {value}", f"write above 0 and at most {most:g}")
        bounds = watched_bounds(policy)
        scores = policy.scores if isinstance(policy, RoutingPolicy) else None
        each = level / max(1, len(bounds) + (scores is not None))
        return cls(
            policy=policy.digest or policy.computed_digest(),
            edges=() if scores is None else scores.edges,
            label_free={name: LabelFreeMonitor.of(bound, rate, each) for name, bound in bounds.items()},
            score_drift=None if scores is None else ScoreDriftMonitor.of(scores, each, policy.seed),
        )

    @classmethod
    def resumed(cls, state: str, policy: Policy) -> Watch:
        """A watch from its JSON; raises InputError where it is of another policy, ValueError where it is none."""
        found = cls.model_validate_json(state)
        digest = policy.digest or policy.computed_digest()
        if found.policy != digest:
            raise one(
                InputError, "watch.policy", f"found {found.policy}", f"expected {digest}: begin a fresh watch"
            )
        return found

    def tally(self) -> Tally:
        """An empty tally for one replica and one group over one period."""
        return Tally(self.edges)

    def fold(self, tallies: Mapping[str, Tally | Counts]) -> Watch:
        """The watch after one more period; `tallies` by group, those of all replicas merged before.

        Requests of a group that is not watched apart count under ALL.
        """
        whole = self.tally()
        for tally in tallies.values():
            whole.merge(tally)
        empty = Counts()
        label_free = {
            name: monitor.fold(whole if name == ALL else tallies.get(name, empty))
            for name, monitor in self.label_free.items()
        }
        drift = None if self.score_drift is None else self.score_drift.fold(whole)
        return self.model_copy(update={"label_free": label_free, "score_drift": drift})

    def names(self) -> list[str]:
        """Every monitor's name: `label-free`, `label-free/<group>`, `score-drift`."""
        found = [f"label-free/{name}" if name else "label-free" for name in self.label_free]
        return [*found, "score-drift"] if self.score_drift is not None else found

    def alarms(self) -> dict[str, str]:
        """Every alarm there ever was, by monitor (`label-free`, `label-free/<group>`, `score-drift`), in words."""
        found = {
            f"label-free/{name}" if name else "label-free": monitor.message()
            for name, monitor in self.label_free.items()
            if monitor.alarm
        }
        if self.score_drift is not None and self.score_drift.alarm:
            found["score-drift"] = self.score_drift.message()
        return found


def watched_bounds(policy: Policy) -> dict[str, float]:
    """The certified bounds that can be broken, by group; the empty name for all requests together."""
    rules = policy.groups if isinstance(policy, RoutingPolicy) else {}
    certificates = {name: rule.certificate for name, rule in rules.items() if rule.kind != "all-large"}
    if not rules and policy.kind != "all-large":
        certificates = {ALL: policy.certificate}
    return {
        name: certificate.label_free.upper
        for name, certificate in sorted(certificates.items())
        if certificate.label_free is not None and 0.0 < certificate.label_free.upper < 1.0
    }
