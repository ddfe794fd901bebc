"""What ``/classify`` takes and gives, in the manner of vLLM's classification endpoint. Pure."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_TEXTS = 1024
"""Texts of one request at most."""
_TASK_FIELDS = ("messages", "prompt")


class BadRequestError(ValueError):
    """A request that cannot be answered; the message names the field, ``status`` is HTTP's."""

    def __init__(self, message: str, param: str | None = None, status: int = 400):
        """Keep what an answer needs."""
        super().__init__(message)
        self.param, self.status = param, status


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        texts: what is to be classified, at least one.
        truncate: tokens to which texts are cut: -1 for the model's limit, None to refuse longer ones.
        probabilities: whether softmax is wanted, or the logits as they are (``use_activation: false``).
    """

    texts: tuple[str, ...]
    truncate: int | None
    probabilities: bool


def parse(raw: bytes, served: str) -> Question:
    """Read a request.

    Args:
        raw: the body.
        served: the name of the model; a body that names another is refused.

    Raises:
        BadRequestError: it cannot be answered.
    """
    body = body_of(raw, served)
    for name in _TASK_FIELDS:
        if name in body:
            raise BadRequestError(f"{name}: a classifier reads one text: write input", name)
    found = body.get("input")
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequestError("input: expected a text, or a list of texts", "input")
    if len(texts) > MOST_TEXTS:
        raise BadRequestError(f"input: found {len(texts)} texts, at most {MOST_TEXTS} are taken", "input")
    use = body.get("use_activation")
    if use is not None and not isinstance(use, bool):
        raise BadRequestError("use_activation: expected true or false", "use_activation")
    return Question(tuple(texts), truncation(body), use is not False)


def body_of(raw: bytes, served: str) -> dict[str, Any]:
    """Return a request's body, which is for the model that is served here.

    Raises:
        BadRequestError: it is no JSON object, or names another model.
    """
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body is no JSON object")
    if body.get("model") not in (None, served):
        raise BadRequestError(
            f"model: found {str(body['model'])[:100]!r}, served is {served!r}", "model", 404
        )
    return body


def truncation(body: Mapping[str, Any]) -> int | None:
    """Return ``truncate_prompt_tokens`` of a request.

    Raises:
        BadRequestError: it is no number that can be meant.
    """
    truncate = body.get("truncate_prompt_tokens")
    if truncate is not None and (type(truncate) is not int or truncate < -1 or truncate in (0, 1)):
        raise BadRequestError(
            "truncate_prompt_tokens: expected -1 or a number of tokens above 1", "truncate_prompt_tokens"
        )
    return truncate


def fitted(ids: Sequence[int], limit: int, truncate: int | None) -> tuple[int, ...]:
    """Return a text's tokens, cut where that is wanted; the last one, which closes the text, stays.

    Args:
        ids: with the special tokens.
        limit: tokens that the model takes.
        truncate: as in :class:`Question`.

    Raises:
        BadRequestError: it is longer than the model takes, and is not to be cut.
    """
    most = limit if truncate in (None, -1) else min(limit, truncate or limit)
    if len(ids) <= most:
        return tuple(ids)
    if truncate is None:
        raise BadRequestError(
            f"input: a text has {len(ids)} tokens, and the model takes {limit}; send less, or truncate_prompt_tokens: -1",
            "input",
        )
    return (*ids[: most - 1], ids[-1])


def padded(texts: Sequence[Sequence[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and attention mask (texts × tokens)."""
    ids = np.full((len(texts), max(map(len, texts))), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for line, text in enumerate(texts):
        ids[line, : len(text)] = text
        mask[line, : len(text)] = 1
    return ids, mask


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities along the last axis."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return found


def answer(
    model: str, labels: Sequence[str], logits: Sequence[NDArray[np.float32]], tokens: int, probabilities: bool
) -> dict[str, Any]:
    """Return the body of an answer.

    Args:
        model: the revision's name.
        labels: in the order of the logits.
        logits: of each text.
        tokens: of all texts together.
        probabilities: whether ``probs`` are softmaxed.
    """
    data = []
    for index, found in enumerate(logits):
        values = softmax(found) if probabilities else found
        label = labels[int(np.argmax(found))]
        data.append(
            {"index": index, "label": label, "probs": [float(v) for v in values], "num_classes": len(labels)}
        )
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    return {
        "id": f"classify-{uuid.uuid4().hex}", "object": "list", "created": int(time.time()), "model": model,
        "data": data, "usage": usage,
    }  # fmt: skip
