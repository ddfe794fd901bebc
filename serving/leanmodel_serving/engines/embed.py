"""What ``/v1/embeddings`` takes and gives, in OpenAI's form, with vLLM's ``truncate_prompt_tokens``. Pure."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .classify import MOST_TEXTS, BadRequestError, body_of, truncation

Encoding = Literal["float", "base64"]


@dataclass(frozen=True)
class Wanted:
    """One request.

    Attributes:
        texts: what vectors are wanted of, at least one.
        truncate: tokens to which texts are cut: -1 for the model's limit, None to refuse longer ones.
        encoding: numbers, or the bytes of little-endian float32 in base64, which OpenAI's client asks for.
    """

    texts: tuple[str, ...]
    truncate: int | None
    encoding: Encoding


def parse_embedding(raw: bytes, served: str, width: int) -> Wanted:
    """Read a request.

    Args:
        raw: the body.
        served: the name of the model; a body that names another is refused.
        width: numbers of a vector.

    Raises:
        BadRequestError: it cannot be answered.
    """
    body = body_of(raw, served)
    if "messages" in body:
        raise BadRequestError(
            "messages: a vector is made of one text, not of a chat: write input", "messages"
        )
    asked = body.get("encoding_format") or "float"
    if asked not in ("float", "base64"):
        raise BadRequestError("encoding_format: expected float or base64", "encoding_format")
    encoding: Encoding = "base64" if asked == "base64" else "float"
    wanted = body.get("dimensions")
    if wanted is not None and (type(wanted) is not int or wanted != width):
        raise BadRequestError(
            f"dimensions: found {wanted!r}, and this model's vectors have {width} numbers, which cannot be cut: "
            "leave it out", "dimensions",
        )  # fmt: skip
    return Wanted(_texts(body.get("input")), truncation(body), encoding)


def _texts(found: Any) -> tuple[str, ...]:
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not texts:
        raise BadRequestError("input: expected a text, or a list of texts", "input")
    if any(isinstance(text, int | list) for text in texts):
        raise BadRequestError(
            "input: found token numbers, which mean other words to another model's tokenizer: send the text "
            "(LangChain: check_embedding_ctx_length=False)", "input",
        )  # fmt: skip
    if not all(isinstance(text, str) for text in texts):
        raise BadRequestError("input: expected a text, or a list of texts", "input")
    if not all(text.strip() for text in texts):
        raise BadRequestError("input: found an empty text, which has no meaning to embed", "input")
    if len(texts) > MOST_TEXTS:
        raise BadRequestError(f"input: found {len(texts)} texts, at most {MOST_TEXTS} are taken", "input")
    return tuple(texts)


def embedding_answer(
    model: str, vectors: Sequence[NDArray[np.float32]], tokens: int, encoding: Encoding
) -> dict[str, Any]:
    """Return the body of an answer.

    Args:
        model: the revision's name.
        vectors: one for each text (width,).
        tokens: of all texts together.
        encoding: how the numbers are written.
    """
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, encoding)}
        for index, vector in enumerate(vectors)
    ]
    return {
        "id": f"embd-{uuid.uuid4().hex}", "object": "list", "created": int(time.time()), "model": model,
        "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }  # fmt: skip


def _written(vector: NDArray[np.float32], encoding: Encoding) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return [float(value) for value in vector]
