"""A request for a generation: read, checked, and described for the decision."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from leanmodel_api.classification import EMBEDDING, TASK, Task
from leanmodel_routing.decide import RequestFacts

from .errors import ApiError, model_not_found
from .fields import Endpoint, check

PATHS: dict[Endpoint, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "classify": "/classify",
    "embeddings": "/v1/embeddings",
}
TASK_ENDPOINTS: dict[Task | None, tuple[Endpoint, ...]] = {
    None: ("chat", "completions"),
    TASK: ("classify",),
    EMBEDDING: ("embeddings",),
}
"""By task: the endpoints that its models answer."""
ENCODERS: frozenset[Endpoint] = frozenset({"classify", "embeddings"})
"""Endpoints that read ``input`` and generate nothing."""

# Fields that change nothing about what a greedy model answers.
_NEUTRAL_TEXT = (
    "model messages prompt stream stream_options temperature top_p max_tokens max_completion_tokens n logprobs "
    "top_logprobs user metadata store seed service_tier safety_identifier prompt_cache_key parallel_tool_calls "
    "request_id priority tools tool_choice functions function_call"
)
_NEUTRAL = frozenset(_NEUTRAL_TEXT.split())
_VECTORS = frozenset({"input", "encoding_format", "dimensions", "truncate_prompt_tokens"})
# Values with which a field that could matter does not.
_HARMLESS: dict[str, object] = {
    "best_of": 1, "echo": False, "frequency_penalty": 0, "presence_penalty": 0, "repetition_penalty": 1,
    "min_p": 0, "min_tokens": 0, "suffix": "",
}  # fmt: skip
# What an engine uses where a request says nothing (max_tokens: OpenAI's 16 for a raw completion, else no limit).
_DEFAULTS: dict[str, float | int] = {"temperature": 1.0, "top_p": 1.0, "n": 1}


@dataclass(frozen=True)
class Ask:
    """One request as the router sees it.

    Attributes:
        endpoint: which kind.
        body: the parsed body; never changed, copies go to the engines.
        stream: whether chunks are wanted.
        usage_wanted: whether the stream's last chunk shall carry the usage.
    """

    endpoint: Endpoint
    body: Mapping[str, Any]
    stream: bool
    usage_wanted: bool

    @property
    def logprobs(self) -> int | None:
        """How many best log-probs per token the user wants (0: the token's own), None for none."""
        if self.endpoint == "chat":
            return int(self.body.get("top_logprobs") or 0) if self.body.get("logprobs") else None
        wanted = self.body.get("logprobs")
        return None if wanted is None or wanted is False else int(wanted)

    @property
    def tools(self) -> bool:
        """Whether it has tools or functions."""
        return any(self.body.get(name) for name in ("tools", "functions"))

    @property
    def images(self) -> bool:
        """Whether a message holds anything but text."""
        messages = self.body["messages"] if self.endpoint == "chat" else ()
        return any(_has_media(message) for message in messages)

    def prompt_bytes(self) -> int:
        """Return how long the prompt is, as JSON."""
        return len(to_json(self.body.get("messages") or self.body.get("prompt") or self.body.get("input")))

    def text(self) -> str | None:
        """Return the prompt as one text (chat: contents joined by newlines), None where it is not plain text."""
        if self.endpoint != "chat":
            prompt = self.body.get("input" if self.endpoint in ENCODERS else "prompt")
            return prompt if isinstance(prompt, str) else None
        contents = [message.get("content") for message in self.body["messages"]]
        return "\n".join(contents) if all(isinstance(content, str) for content in contents) else None

    def schema(self) -> dict[str, Any] | None:
        """Return the JSON schema that the answer shall follow; None where it asks for none."""
        wanted = self.body.get("response_format")
        if self.endpoint in ENCODERS or not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
            return None
        named = wanted.get("json_schema")
        found = named.get("schema") if isinstance(named, dict) else None
        return found if isinstance(found, dict) else None

    def facts(self, fill: Mapping[str, float | int], lean: str | None, large: str | None) -> RequestFacts:
        """Describe the request for the certificate's scope.

        Args:
            fill: sampling parameters to use where the request leaves them.
            lean: digest of the lean model's artifact, None where unknown.
            large: digest of the large model's.
        """
        value = {name: self.sampling(name, fill) for name in ("temperature", "top_p", "max_tokens", "n")}
        messages = self.body["messages"] if self.endpoint == "chat" else None
        if self.endpoint in ENCODERS:
            value = dict.fromkeys(value)  # nothing is sampled
        # What is no number lies outside of every scope; the engine says in its own words what is wrong with it.
        schema = self.schema() is not None
        odd = tuple(name for name, found in value.items() if found is not None and math.isnan(found))
        return RequestFacts(
            endpoint=self.endpoint,
            messages=messages,
            prompt=self.text() if self.endpoint != "chat" else None,
            temperature=value["temperature"],
            top_p=value["top_p"],
            max_tokens=_whole(value["max_tokens"]),
            n=_whole(value["n"]) or (None if self.endpoint in ENCODERS else 1),
            tools=self.tools,
            images=self.images,
            other_sampling=(
                *(
                    name
                    for name in self.body
                    if self._matters(name) and not (schema and name == "response_format")
                ),
                *odd,
            ),
            response_schema=schema,
            lean_revision=lean,
            large_revision=large,
        )

    def sampling(self, name: str, fill: Mapping[str, float | int]) -> float | int | None:
        """Return a sampling parameter: the request's, else the one to fill in, else the engine's default.

        What is no number, or one that no float can hold (JSON has no bound), is not a number: the engine says what is
        wrong with it.
        """
        found = self.body.get(name)
        if name == "max_tokens" and found is None:
            found = self.body.get("max_completion_tokens")
        if found is not None:
            return found if isinstance(found, int | float) and abs(found) <= _LARGEST else float("nan")
        return fill.get(name, _DEFAULTS.get(name))

    def missing(self, fill: Mapping[str, float | int]) -> dict[str, float | int]:
        """Return those of ``fill`` that the request leaves open."""
        return {
            name: value
            for name, value in fill.items()
            if self.body.get(name) is None
            and not (name == "max_tokens" and self.body.get("max_completion_tokens") is not None)
        }

    def _matters(self, name: str) -> bool:
        value = self.body[name]
        if self.endpoint == "embeddings" and name in _VECTORS:
            return False  # each text has its own vector, whatever stands beside it
        if name in ("prompt", "input"):
            return not isinstance(
                value, str
            )  # several prompts, or token ids: judged as one they would not be
        if name == "n":
            return value not in (None, 1)
        if name in _NEUTRAL or value is None or value == [] or value == {}:
            return False
        return not (name in _HARMLESS and value == _HARMLESS[name])


_LARGEST = sys.float_info.max


def _whole(value: float | int | None) -> int | None:
    return None if value is None or math.isnan(value) else int(value)


def _has_media(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(
        not isinstance(part, dict) or part.get("type") != "text" for part in content
    )


def parse_ask(raw: bytes, endpoint: Endpoint, model: str | None) -> Ask:
    """Read a request body.

    What the engine checks (types and ranges of sampling parameters) is left to it; here is checked only what the
    router itself reads.

    Args:
        raw: the body.
        endpoint: which address it came to.
        model: the name that the body's ``model`` must have; None accepts any.

    Raises:
        ApiError: 400 for what cannot be read, 404 for another model.
    """
    try:
        body = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(
            400, f"the body is a {type(body).__name__}, expected a JSON object", code="invalid_json"
        )
    if model is not None and body.get("model") != model:
        raise model_not_found(body.get("model"), model)
    check(body, endpoint)
    if endpoint in ENCODERS:
        return Ask(endpoint, body, stream=False, usage_wanted=False)
    options = body.get("stream_options") or {}
    return Ask(endpoint, body, bool(body.get("stream")), bool(options.get("include_usage")))
