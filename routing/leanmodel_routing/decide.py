"""The router's side: is the request in the certificate's scope, how sure is the lean answer, and is it kept.

Pure and fast; imports neither numpy nor scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leanmodel_api.policy import Policy, PromptScope
from leanmodel_api.routing_policy import RoutingPolicy
from leanmodel_routing.observation import Observation
from leanmodel_routing.predictors.predict import observed_confidence
from leanmodel_routing.signals import SIGNALS


@dataclass(frozen=True)
class RequestFacts:
    """What of a request bears on the certificate. State values as they will be used, defaults filled in.

    `prompt`: text of /v1/completions or /classify; `messages`: chat messages as sent. `other_sampling`: names of set
    parameters that change what is generated (stop, logit_bias, response_format, penalties, min_p, …).
    `response_schema`: whether response_format is a JSON schema; it is not among the others then.
    `engine`, `dtype`, `lean_revision`, `large_revision`, `chat_template_digest`: what serves now; None
    where the router does not know.
    """

    endpoint: Literal["chat", "completions", "classify", "embeddings"]
    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    n: int | None = None
    tools: bool = False
    images: bool = False
    other_sampling: tuple[str, ...] = ()
    response_schema: bool = False
    engine: str | None = None
    dtype: str | None = None
    lean_revision: str | None = None
    large_revision: str | None = None
    chat_template_digest: str | None = None


@dataclass(frozen=True)
class First:
    """The first decision: `large` and `lean` answer as they are; `try`: the lean answer is judged by `accept`.

    `score`: what the score-drift monitor counts of this request; None where `confidence` gives it later, or where
    nothing is scored.
    """

    route: Literal["large", "lean", "try"]
    score: float | None


class Decider:
    """Decides with one policy. Build one per policy; it is immutable and safe to share between tasks."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        specs = () if policy.predictor is None else policy.predictor.signals
        # Of a signal that is not known here nothing can be said; whoever loads such a policy refuses it.
        read = [spec.params.get("best") for spec in specs]
        self._best = max([2, *(best for best in read if isinstance(best, int))])
        self._needs = {need for spec in specs if spec.name in SIGNALS for need in SIGNALS[spec.name].needs}

    @property
    def kind(self) -> str:
        """all-large, all-lean, predictive, cascade or combined: of a request without a group's rule."""
        return self.policy.kind

    @property
    def asks_lean(self) -> bool:
        """Whether there is a request that asks the lean model."""
        return self._kinds != {"all-large"}

    @property
    def needs_logprobs(self) -> bool:
        """Whether the lean model must be asked for log-probabilities, because the decision reads them."""
        return self._reads_answers and bool(self._needs & {"logprobs", "margins"})

    @property
    def top_logprobs(self) -> int:
        """How many best log-probabilities per token to ask for: as many as were read in calibration; 0 for none."""
        return self._best if self._reads_answers and "margins" in self._needs else 0

    @property
    def hold_back(self) -> int | None:
        """How many tokens of a lean answer the decision reads; None: all of them."""
        return self.policy.scope.hold_back

    @property
    def needs_prompt(self) -> bool:
        """Whether the prompt must be given, because the decision reads it."""
        first = bool({"predictive", "combined"} & self._kinds)
        return first or (self._reads_answers and "prompt" in self._needs)

    @property
    def _kinds(self) -> set[str]:
        groups = self.policy.groups if isinstance(self.policy, RoutingPolicy) else {}
        return {self.policy.kind, *(rule.kind for rule in groups.values())}

    @property
    def _reads_answers(self) -> bool:
        return bool({"cascade", "combined"} & self._kinds)

    def first(self, prompt: str | None = None, group: str | None = None) -> First:
        """What to do before anything is generated.

        `prompt`: the request's text, needed where `needs_prompt`; without it the large model answers. `group`: the
        request's group, where the policy has rules for groups; one that has no rule gets the policy's own.
        """
        kind, ask_at, _ = self._rule(group)
        before = self.policy.before if isinstance(self.policy, RoutingPolicy) else None
        score = None
        if kind in ("predictive", "combined") and before is not None:
            score = observed_confidence(before, Observation(prompt=prompt))
        if kind == "all-lean":
            return First("lean", None)
        if kind == "cascade":
            return First("try", None)
        if kind == "all-large" or score is None:
            return First("large", None)
        if kind == "predictive":
            return First("lean" if score >= ask_at else "large", score)
        # A request that is never tried scores below all that are, as in calibration.
        return First("try", None) if score >= ask_at else First("large", -1.0)

    def certified_sampling(self) -> dict[str, float | int]:
        """Sampling parameters that the certificate is for; a router may fill them in where a request leaves
        them.
        """
        scope = self.policy.scope
        pairs = {
            "temperature": scope.temperature,
            "top_p": scope.top_p,
            "max_tokens": scope.max_tokens,
            "n": scope.n,
        }
        return {name: value for name, value in pairs.items() if value is not None}

    def confidence(
        self,
        token_logprobs: Sequence[float] | None,
        top_logprobs: Sequence[Sequence[float]] | None = None,
        answer: str | None = None,
        finish_reason: str | None = None,
        *,
        prompt: str | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> float:
        """Calibrated confidence in [0, 1] that the lean answer does no harm.

        `token_logprobs`: natural log-probability of each generated token, of the whole answer or, with `hold_back`, of
        more tokens than that. `top_logprobs`: for each token
        its best ones, best first. `prompt`: the request's text (chat: contents joined by newlines), read
        only by policies with a prompt signal. `schema`: the JSON schema it asks for. 0, and so the large model, where something that the policy
        reads is missing.
        """
        if self.policy.predictor is None:
            return 0.0
        seen = Observation(token_logprobs, top_logprobs, answer, finish_reason, prompt, schema)
        return observed_confidence(self.policy.predictor, seen.first(self.hold_back))

    def knows(self, group: str) -> bool:
        """Whether the policy has a rule of its own for a group."""
        return isinstance(self.policy, RoutingPolicy) and group in self.policy.groups

    def accept(self, confidence: float, group: str | None = None) -> bool:
        """Whether the lean answer is kept, once it was tried, at this confidence of it."""
        kind, _, threshold = self._rule(group)
        if kind in ("cascade", "combined"):
            return confidence >= threshold
        return kind == "all-lean"

    def _rule(self, group: str | None) -> tuple[str, float, float]:
        """(kind, ask_at, threshold) for a request of this group."""
        if not isinstance(self.policy, RoutingPolicy):
            return self.policy.kind, 0.0, self.policy.threshold
        rule = self.policy.groups.get(group or "", self.policy)
        return rule.kind, rule.ask_at, rule.threshold

    def in_scope(self, facts: RequestFacts) -> tuple[bool, str]:
        """(True, "") where the certificate speaks of this request, else (False, why), short enough for a
        header.
        """
        scope = self.policy.scope
        if facts.tools:
            return False, "tools: not part of the certificate"
        if facts.images:
            return False, "images: not part of the certificate"
        if facts.other_sampling:
            return False, f"{facts.other_sampling[0]}: not part of the certificate"
        if facts.response_schema != (scope.response_format == "json_schema"):
            asked = "json_schema" if facts.response_schema else "unset"
            return False, f"response_format: {asked}, certified for {scope.response_format or 'none'}"
        for name, certified in (
            ("endpoint", scope.endpoint),
            ("temperature", scope.temperature),
            ("top_p", scope.top_p),
            ("max_tokens", scope.max_tokens),
            ("n", scope.n),
        ):
            asked = getattr(facts, name)
            if certified is not None and asked != certified:
                return False, f"{name}: {'unset' if asked is None else asked}, certified for {certified}"
        for name in ("engine", "dtype", "lean_revision", "large_revision", "chat_template_digest"):
            certified, serving = getattr(scope, name), getattr(facts, name)
            if certified is not None and serving is not None and serving != certified:
                return False, f"{name}: {serving}, certified for {certified}"
        return (True, "") if scope.prompt is None else _prompt_fits(scope.prompt, facts)


def prompt_scope(template: str | Sequence[Mapping[str, str]]) -> PromptScope:
    """The literal shape of a prompt template with {column}s: what stands before its first and after its
    last one.

    A text without columns must be asked as it is.
    """
    if isinstance(template, str):
        prefix, suffix = _ends(template)
        return PromptScope(roles=(), prefixes=(prefix,), suffixes=(suffix,))
    ends = [_ends(message["content"]) for message in template]
    return PromptScope(
        roles=tuple(message["role"] for message in template),
        prefixes=tuple(prefix for prefix, _ in ends),
        suffixes=tuple(suffix for _, suffix in ends),
    )


def _ends(text: str) -> tuple[str, str]:
    first, last = text.find("{"), text.rfind("}")
    return (text, text) if first < 0 or last < first else (text[:first], text[last + 1 :])


def _prompt_fits(shape: PromptScope, facts: RequestFacts) -> tuple[bool, str]:
    if shape.roles:
        messages = facts.messages or ()
        if tuple(str(message.get("role")) for message in messages) != shape.roles:
            return False, f"messages: expected the roles {', '.join(shape.roles)}"
        contents = [message.get("content") for message in messages]
    else:
        contents = [facts.prompt]
    for content, prefix, suffix in zip(contents, shape.prefixes, shape.suffixes, strict=True):
        if not isinstance(content, str):
            return False, "prompt: not plain text"
        fixed = prefix == suffix and content == prefix
        room = len(content) >= len(prefix) + len(suffix)
        if not fixed and not (room and content.startswith(prefix) and content.endswith(suffix)):
            return False, "prompt: not of the certified template"
    return True, ""
