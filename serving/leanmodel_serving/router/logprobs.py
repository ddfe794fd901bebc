"""Log-probabilities: asked of the lean model for the decision, and taken out again for those who did not ask."""

from __future__ import annotations

from typing import Any

from .ask import Ask, Endpoint


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
        """Take in a whole answer's body, or one chunk; only the first choice counts."""
        for choice in body.get("choices") or ():
            if choice.get("index", 0) != 0:
                continue
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if self.endpoint == "chat":
                message = choice.get("message") or choice.get("delta") or {}
                self.text.append(message.get("content") or "")
                for token in (choice.get("logprobs") or {}).get("content") or ():
                    self._token(
                        token.get("logprob"), [item["logprob"] for item in token.get("top_logprobs") or ()]
                    )
            else:
                self.text.append(choice.get("text") or "")
                found = choice.get("logprobs") or {}
                tops = found.get("top_logprobs") or []
                for index, value in enumerate(found.get("token_logprobs") or ()):
                    best = tops[index] if index < len(tops) else None
                    self._token(value, list((best or {}).values()))

    def _token(self, value: float | None, best: list[float]) -> None:
        if value is None:
            self.complete = False  # a decision on half the tokens would not be the certified one
            return
        self.tokens.append(value)
        self.top.append(sorted(best, reverse=True))

    @property
    def answer(self) -> str:
        """The answer's text."""
        return "".join(self.text)


def widen(ask: Ask, body: dict[str, Any], best: int) -> None:
    """Make ``body`` (a copy of the request's) ask for log-probs with at least ``best`` alternatives per token."""
    wanted = max(ask.logprobs or 0, best)
    if ask.endpoint == "chat":
        body["logprobs"] = True
        body["top_logprobs"] = wanted
    else:
        body["logprobs"] = wanted


def narrow(ask: Ask, body: dict[str, Any]) -> None:
    """Take out of an answer (or chunk) what of log-probs the user did not ask for, in place."""
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
