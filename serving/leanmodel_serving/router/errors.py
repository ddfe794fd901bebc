"""Errors as OpenAI's API shapes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

RETRY_AFTER_S = 5
NO_REPLICA = "no_replica"
"""The code of HAProxy's own errors (:mod:`..haproxy`): nobody is behind an address, or hung up."""
EXTERNAL = "external"
"""The external provider where a revision is named: in errors, headers, metrics and the log."""


@dataclass
class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        message: what happened and what to do, for people.
        kind: OpenAI's ``type``.
        code: OpenAI's ``code``, for machines.
        param: the field of the request at fault.
        retry_after: seconds after which another try makes sense.
    """

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after: int | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the JSON body."""
        return error_body(self.message, self.kind, self.code, self.param)


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    """Return ``{"error": {message, type, param, code}}`` as JSON."""
    content: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    return to_json({"error": content})


def not_found(path: str) -> ApiError:
    """No such address."""
    return ApiError(
        404,
        f"there is nothing at {path[:200]}; ask /v1/chat/completions, /v1/completions, /classify, /v1/embeddings or /v1/models",
    )


def other_task(path: str, own: Sequence[str]) -> ApiError:
    """The address is one of another kind of model than this endpoint serves."""
    return ApiError(404, f"these models do not answer {path}; ask {' or '.join(own)}", code="other_task")


def model_not_found(asked: object, served: str) -> ApiError:
    """The request names a model that this endpoint does not serve."""
    found = asked if isinstance(asked, str) else "nothing" if asked is None else type(asked).__name__
    return ApiError(
        404,
        f"model: found {str(found)[:100]!r}, this endpoint serves {served!r}",
        code="model_not_found",
        param="model",
    )


def _who(revision: str) -> str:
    return "the external provider" if revision == EXTERNAL else f"the engine of {revision}"


def engine_down(revision: str, why: str) -> ApiError:
    """The engine that must answer cannot be reached."""
    return ApiError(
        503,
        f"{_who(revision)} cannot be reached ({why}); try again",
        kind="service_unavailable_error",
        code="engine_unavailable",
        retry_after=RETRY_AFTER_S,
    )


def engine_broken(revision: str, why: str) -> ApiError:
    """The engine answered something that is no answer."""
    return ApiError(
        502,
        f"{_who(revision)} gave no usable answer ({why}); try again",
        kind="api_error",
        code="bad_gateway",
        retry_after=RETRY_AFTER_S,
    )


def engine_resting(revision: str, seconds: float) -> ApiError:
    """The engine that must answer has failed repeatedly and is left alone for a while."""
    return ApiError(
        503,
        f"{_who(revision)} has failed repeatedly and is left alone for {seconds:.1f} s; try again then",
        kind="service_unavailable_error",
        code="engine_unavailable",
        retry_after=max(1, math.ceil(seconds)),
    )


def engine_slow(revision: str) -> ApiError:
    """The engine did not answer in time."""
    return ApiError(
        504,
        f"{_who(revision)} did not answer in time; ask for fewer tokens, or try again",
        kind="timeout_error",
        code="engine_timeout",
        retry_after=RETRY_AFTER_S,
    )
