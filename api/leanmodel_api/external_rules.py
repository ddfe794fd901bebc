"""What the fields about an external provider, waiting and breakers must say together. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .base import seconds
from .classification import EMBEDDING, TASK
from .errors import Issue
from .external import in_the_clear
from .resource import Spec

WAITS = ("connect", "first_token", "between_tokens", "answer")
_FALLBACK = "spec.routing.fallback"
_WORDLESS = {
    TASK: "no OpenAI-compatible API gives labels with probabilities",
    EMBEDDING: "its vectors are of another space, and could not be compared with the large model's",
}


def external_issues(spec: Spec) -> Iterable[Issue]:
    """A provider that is allowed is declared, reached by https, and answers what this LeanModel is asked."""
    routing, fallback = spec.routing, spec.routing.fallback
    if fallback is None:
        if routing.external_providers == "Allowed" and spec.teacher is None:
            yield Issue(
                "spec.routing.externalProviders",
                "found Allowed, but no provider is declared",
                f"write {_FALLBACK} or spec.teacher, or Forbidden",
            )
        return
    if in_the_clear(fallback.external.base_url):
        yield Issue(
            f"{_FALLBACK}.external.baseUrl",
            f"found {fallback.external.base_url}, which would carry prompts unencrypted",
            "write https://",
        )
    if len(set(fallback.accepts)) != len(fallback.accepts):
        yield Issue(f"{_FALLBACK}.accepts", "the same ability stands twice", "write each once")
    if spec.task in _WORDLESS:
        yield Issue(
            _FALLBACK,
            f"found a provider of answers in words, with task {spec.task}",
            f"remove it: {_WORDLESS[spec.task]}",
        )


def waiting_issues(spec: Spec) -> Iterable[Issue]:
    """Nobody can be waited for for no time at all."""
    router, fallback = spec.serving.router, spec.routing.fallback
    places = [("spec.serving.router.timeouts", router.timeouts)]
    found = [(f"{place}.{_wire(name)}", getattr(part, name)) for place, part in places for name in WAITS]
    if fallback is not None:
        found += [(f"{_FALLBACK}.timeouts.{_wire(name)}", getattr(fallback.timeouts, name)) for name in WAITS]
    found.append(("spec.serving.router.breaker.openFor", router.breaker.open_for))
    if router.heartbeat is not None:
        found.append(("spec.serving.router.heartbeat", router.heartbeat))
    for field, text in found:
        if seconds(text) <= 0:
            yield Issue(field, f"found {text}", "write above 0, such as 30s")


def _wire(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
