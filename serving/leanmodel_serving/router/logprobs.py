"""Log-probabilities: asked of the lean model for the decision, and taken out again for those who did not ask."""

from __future__ import annotations

from typing import Any

from leanmodel_routing.labels import log_probability

from .ask import ENCODERS, Ask
from .fields import Endpoint


class Reading:
    """What a decision reads of an answer, gathered from one body or from the chunks of a stream."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Start empty, for the given kind of answer."""
        self.endpoint = endpoint
        self.tokens: list[float] = []
        self.top: list[list[float]] = []
        self.text: list[str] = []
        self.finish_reason: str | None = None
        self.complete = True

    def take(self, body: dict[str, Any]) -> None:
        """Take in a whole answer's body, or one chunk; only the first choice counts.

        Raises:
            ValueError: an engine's answer is not of the endpoint's form.
        """
        try:
            self._take(body)
        except (AttributeError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not an answer of {self.endpoint}: {error!r}") from error

    def _take(self, body: dict[str, Any]) -> None:
        if self.endpoint == "classify":
            self._label(body)
            return
        if self.endpoint == "embeddings":
            self.complete = False  # a vector has no log-probs to decide by
            return
        for choice in body.get("choices") or ():
            if choice.get("index", 0) != 0:
                continue
            self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
            if self.endpoint == "chat":
                message = choice.get("message") or choice.get("delta") or {}
                self.text.append(_text(message.get("content")) or "")
                for token in (choice.get("logprobs") or {}).get("content") or ():
                    self._token(
                        token.get("logprob"), [item["logprob"] for item in token.get("top_logprobs") or ()]
                    )
            else:
                self.text.append(_text(choice.get("text")) or "")
                found = choice.get("logprobs") or {}
                tops = found.get("top_logprobs") or []
                for index, value in enumerate(found.get("token_logprobs") or ()):
                    best = tops[index] if index < len(tops) else None
                    self._token(value, list((best or {}).values()))

    def _label(self, body: dict[str, Any]) -> None:
        """Take in a classifier's answer: its label is one token, the labels' probabilities are its alternatives."""
        data: list[dict[str, Any]] = body.get("data") or []
        if len(data) != 1 or data[0].get("label") is None:
            self.complete = False
            return
        # Two alternatives, as the proof had them.
        best = sorted((log_probability(value) for value in data[0]["probs"]), reverse=True)[:2]
        self.text.append(str(data[0]["label"]))
        self.finish_reason = "stop"
        self._token(best[0], best)

    def _token(self, value: float | None, best: list[float]) -> None:
        if value is None:
            self.complete = False  # a decision on half the tokens would not be the certified one
            return
        self.tokens.append(float(value))
        self.top.append(sorted(map(float, best), reverse=True))

    @property
    def answer(self) -> str:
        """The answer's text."""
        return "".join(self.text)


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"found {type(value).__name__}, expected text")
    return value


def widen(ask: Ask, body: dict[str, Any], best: int) -> None:
    """Make ``body`` (a copy of the request's) ask for log-probs with at least ``best`` alternatives per token."""
    if ask.endpoint in ENCODERS:
        return  # it gives its probabilities unasked
    wanted = max(ask.logprobs or 0, best)
    if ask.endpoint == "chat":
        body["logprobs"] = True
        body["top_logprobs"] = wanted
    else:
        body["logprobs"] = wanted


def narrow(ask: Ask, body: dict[str, Any]) -> None:
    """Take out of an answer (or chunk) what of log-probs the user did not ask for, in place.

    Raises:
        ValueError: an engine's answer is not of the endpoint's form.
    """
    try:
        _narrow(ask, body)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"not an answer of {ask.endpoint}: {error!r}") from error


def _narrow(ask: Ask, body: dict[str, Any]) -> None:
    wanted = ask.logprobs
    for choice in body.get("choices") or ():
        found = choice.get("logprobs")
        if not found:
            continue
        if wanted is None:
            choice["logprobs"] = None
        elif ask.endpoint == "chat":
            for token in found.get("content") or ():
                token["top_logprobs"] = (token.get("top_logprobs") or [])[:wanted]
        else:
            # A raw completion lists the chosen token beside the best ones, even when it is none of them.
            found["top_logprobs"] = [
                _best(best, token, wanted)
                for best, token in zip(
                    found.get("top_logprobs") or (), found.get("tokens") or (), strict=False
                )
            ]


def _best(best: dict[str, float] | None, chosen: str, wanted: int) -> dict[str, float] | None:
    if best is None:
        return None
    kept = dict(sorted(best.items(), key=lambda item: -item[1])[:wanted])
    if chosen in best:
        kept[chosen] = best[chosen]
    return kept
