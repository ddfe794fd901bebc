"""One request to one revision, in OpenAI's form, and what came back of it.

The route is the router's internal one: the engine that users will get, behind the same proxy.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import httpx

from leanmodel_api.classification import EMBEDDING, TASK, Task
from leanmodel_api.errors import InputError, LeanModelError, one
from leanmodel_api.parts import Example
from leanmodel_routing.labels import log_probability

from .answers import Answer, Score, request_digest

RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
REFUSED_STATUS = frozenset({400, 413, 422})
ATTEMPTS = 8
LONGEST_WAIT = 15.0
BEST = 5
"""Log-probabilities asked for of each token: what the entropy signal reads, see `leanmodel_routing.signals.entropy`."""


class EndpointError(LeanModelError):
    """The endpoint did not answer, however often it was asked; what was answered until then is kept."""

    exit_code = 1


def answer_body(
    model: str, example: Example, max_tokens: int, task: Task | None = None
) -> tuple[str, dict[str, Any]]:
    """Return (path, body) of the request that asks an example, greedily and with log-probabilities.

    Args:
        task: of the models; a classifier gives its label's probability unasked.
    """
    if task == EMBEDDING:
        return "/v1/embeddings", {"model": model, "input": example.text, "encoding_format": "base64"}
    if task == TASK:
        return "/classify", {"model": model, "input": example.text}
    common: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": 0}
    if example.text is not None:
        return "/v1/completions", {**common, "prompt": example.text, "logprobs": BEST}
    return "/v1/chat/completions", {
        **common,
        "messages": _messages(example),
        "logprobs": True,
        "top_logprobs": BEST,
    }


def score_body(model: str, example: Example) -> tuple[str, dict[str, Any]]:
    """Return (path, body) of the request that scores an example's wanted answer (or its whole prompt).

    vLLM gives the log-probabilities of a prompt's own tokens under ``prompt_logprobs``; the answer is
    sent as the prompt's end.
    """
    common: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    if example.text is not None:
        return "/v1/completions", {**common, "prompt": example.text + (example.answer or "")}
    messages = _messages(example)
    if example.answer is None:
        return "/v1/chat/completions", {**common, "messages": messages, "add_generation_prompt": False}
    messages.append({"role": "assistant", "content": example.answer})
    return "/v1/chat/completions", {**common, "messages": messages, "add_generation_prompt": False}


def _messages(example: Example) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in example.messages or []]


def parse_answer(request: str, reply: dict[str, Any], seconds: float) -> Answer:
    """Return the answer that a reply carries, of either endpoint.

    Raises:
        EndpointError: the reply is not in OpenAI's form, or carries no log-probabilities.
    """
    try:
        if "data" in reply:
            return _label(request, reply, seconds)
        choice = reply["choices"][0]
        usage = reply.get("usage") or {}
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        logprobs, top = _logprobs(choice.get("logprobs") or {})
        return Answer(
            request=request,
            text=text or "",
            logprobs=logprobs,
            top_logprobs=top,
            finish_reason=choice.get("finish_reason") or "",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or len(logprobs)),
            seconds=round(seconds, 4),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EndpointError(f"the endpoint's answer is not in OpenAI's form ({error!r})") from error


def _label(request: str, reply: dict[str, Any], seconds: float) -> Answer:
    """Return an encoder's answer: a vector, or a label as one token, with the best labels' log-probabilities."""
    found = reply["data"][0]
    if "embedding" in found:
        return Answer(
            request=request, text="", finish_reason="stop", vector=str(found["embedding"]),
            prompt_tokens=int(reply["usage"]["prompt_tokens"]), seconds=round(seconds, 4),
        )  # fmt: skip
    best = sorted((log_probability(value) for value in found["probs"]), reverse=True)
    return Answer(
        request=request, text=str(found["label"]), logprobs=best[:1], top_logprobs=[best[:2]], finish_reason="stop",
        prompt_tokens=int(reply["usage"]["prompt_tokens"]), completion_tokens=0, seconds=round(seconds, 4),
    )  # fmt: skip


def _logprobs(part: dict[str, Any]) -> tuple[list[float], list[list[float]]]:
    """Return (log-probabilities, best ones per token) of a chat's or a completion's ``logprobs``."""
    if part.get("content") is not None:
        chosen = [float(token["logprob"]) for token in part["content"]]
        tops = [
            [float(top["logprob"]) for top in token.get("top_logprobs") or []] for token in part["content"]
        ]
    else:
        chosen = [float(value) for value in part.get("token_logprobs") or []]
        tops = [[float(value) for value in (top or {}).values()] for top in part.get("top_logprobs") or []]
    ranked = [sorted(top, reverse=True)[:BEST] for top in tops]
    return chosen, ranked if len(ranked) == len(chosen) else []


def parse_score(request: str, reply: dict[str, Any], skip: int) -> Score:
    """Return the score of the prompt's tokens after the first ``skip``.

    Raises:
        EndpointError: the engine gives no log-probabilities of the prompt.
    """
    listed = reply.get("prompt_logprobs")
    if listed is None and reply.get("choices"):
        listed = reply["choices"][0].get("prompt_logprobs")
    if not listed:
        raise EndpointError("the engine gives no prompt_logprobs, so perplexity cannot be measured on it")
    values = [float(next(iter(token.values()))["logprob"]) for token in listed[max(skip, 1) :] if token]
    return Score(request=request, nll=-sum(values), tokens=len(values))


class Asker:
    """A keep-alive connection to the revisions of one LeanModel.

    Args:
        endpoint: address of the router, without a path.
        model: the LeanModel's name, which requests carry.
        token: what the internal route wants to see; never logged.
        timeout: seconds that one request may take.
        task: of the models.
    """

    def __init__(
        self, endpoint: str, model: str, token: str, concurrency: int, timeout: float = 300.0, task: Task | None = None
    ):  # fmt: skip
        """Build the client; nothing is sent yet."""
        self.model, self.task = model, task
        self._client = httpx.AsyncClient(
            base_url=endpoint.rstrip("/"),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(timeout, connect=10.0),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            trust_env=False,
        )
        self._random = random.Random(0)

    async def __aenter__(self) -> Asker:
        """Open the connections."""
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        """Close the connections."""
        await self._client.__aexit__(*failure)

    async def answer(self, revision: str, example: Example, max_tokens: int) -> Answer:
        """Ask one example of one revision; a request that the engine refuses comes back as refused."""
        path, body = answer_body(self.model, example, max_tokens, self.task)
        request = request_digest(body)
        started = time.monotonic()
        reply = await self.post(revision, path, body)
        if isinstance(reply, str):
            return Answer(request=request, text="", finish_reason="refused", error=reply)
        return parse_answer(request, reply, time.monotonic() - started)

    async def score(self, revision: str, example: Example, prompt_tokens: int) -> Score:
        """Score an example's wanted answer; ``prompt_tokens`` of the prompt itself are left out."""
        path, body = score_body(self.model, example)
        reply = await self.post(revision, path, body)
        request = request_digest(body)
        if isinstance(reply, str):
            return Score(request=request, nll=0.0, tokens=0)
        return parse_score(request, reply, prompt_tokens if example.answer is not None else 1)

    async def metrics_text(self, revision: str) -> str | None:
        """Return the revision's Prometheus metrics, or None where the route does not give them."""
        try:
            reply = await self._client.get(f"/internal/revisions/{revision}/metrics")
        except httpx.TransportError:
            return None
        return reply.text if reply.status_code == 200 else None

    async def post(self, revision: str, path: str, body: dict[str, Any]) -> dict[str, Any] | str:
        """Send a request until it is answered, at most so often; return the reply, or why it was refused.

        Raises:
            InputError: the route is not there or does not let us in: asking again would not help.
            EndpointError: no answer after every attempt.
        """
        url = f"/internal/revisions/{revision}{path}"
        trouble = ""
        for attempt in range(ATTEMPTS):
            try:
                reply = await self._client.post(url, json=body)
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                if reply.status_code == 200:
                    return _content(revision, reply)
                if reply.status_code in REFUSED_STATUS:
                    return _message(reply)
                if reply.status_code not in RETRY_STATUS:
                    raise _unreachable(revision, reply)
                trouble = f"HTTP {reply.status_code}: {_message(reply)}"
            await asyncio.sleep(min(LONGEST_WAIT, 0.25 * 2**attempt) * (0.5 + self._random.random()))
        raise EndpointError(
            f"{revision} did not answer {url} in {ATTEMPTS} attempts (last: {trouble}); what was answered "
            "is kept, so start the Job again when the endpoint is up"
        )


def _content(revision: str, reply: httpx.Response) -> dict[str, Any]:
    try:
        content = reply.json()
    except ValueError as error:
        raise EndpointError(f"{revision} answered something that is no JSON: {reply.text[:80]!r}") from error
    return content if isinstance(content, dict) else {}


def _message(reply: httpx.Response) -> str:
    """Return the words of an error in OpenAI's form, or the beginning of whatever came."""
    try:
        content = reply.json()
        error = content.get("error", content)
        return str(error.get("message", error))[:300]
    except (ValueError, AttributeError):
        return reply.text[:300]


def _unreachable(revision: str, reply: httpx.Response) -> InputError:
    if reply.status_code in (401, 403):
        return one(
            InputError,
            "--token-file",
            f"the internal route answered {reply.status_code}",
            "give the router's token",
        )
    return one(
        InputError,
        "--endpoint",
        f"{revision} answered {reply.status_code} ({_message(reply)})",
        "give the router's address, and check that the revision is served",
    )
