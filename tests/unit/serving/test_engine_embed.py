"""What a sentence encoder's engine takes and gives, and how the router reads it; nothing of Ray or ONNX Runtime."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from leanmodel_serving.engines.classify import BadRequestError
from leanmodel_serving.engines.embed import embedding_answer, parse_embedding
from leanmodel_serving.router.ask import parse_ask
from leanmodel_serving.router.logprobs import Reading, narrow, widen


def asked(**body: Any) -> Any:
    return parse_embedding(json.dumps(body).encode(), "lean-1", 4)


def test_a_text_and_a_list_of_texts_in_both_encodings() -> None:
    assert asked(input="a").texts == ("a",) and asked(input="a").encoding == "float"
    found = asked(model="lean-1", input=["a", "b"], encoding_format="base64", dimensions=4, truncate_prompt_tokens=-1, user="u")  # fmt: skip
    assert (found.texts, found.encoding, found.truncate) == (("a", "b"), "base64", -1)


@pytest.mark.parametrize(
    ("body", "param", "status", "words"),
    [
        ({"input": 3}, "input", 400, "a list of texts"),
        ({"input": [1, 2]}, "input", 400, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2]]}, "input", 400, "token numbers"),
        ({"input": None}, "input", 400, "a list of texts"),
        ({"input": []}, "input", 400, "a list of texts"),
        ({"input": ["a", " "]}, "input", 400, "an empty text"),
        ({"input": ["a"] * 1025}, "input", 400, "at most 1024"),
        ({"input": "a", "dimensions": 2}, "dimensions", 400, "have 4 numbers"),
        ({"input": "a", "dimensions": True}, "dimensions", 400, "leave it out"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", 400, "float or base64"),
        ({"messages": []}, "messages", 400, "not of a chat"),
        ({"input": "a", "model": "other"}, "model", 404, "served is 'lean-1'"),
        ({"input": "a", "truncate_prompt_tokens": 1}, "truncate_prompt_tokens", 400, "above 1"),
    ],
)
def test_what_cannot_be_answered_names_the_field(body: dict[str, Any], param: str, status: int, words: str) -> None:  # fmt: skip
    with pytest.raises(BadRequestError, match=words) as caught:
        asked(**body)
    assert (caught.value.param, caught.value.status) == (param, status)


@pytest.mark.parametrize("raw", [b"{", b"[1]"])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_embedding(raw, "lean-1", 4)


@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_both_encodings_carry_the_same_numbers(rows: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    plain = embedding_answer("m", list(rows), 7, "float")
    coded = embedding_answer("m", list(rows), 7, "base64")
    assert plain["usage"] == {"prompt_tokens": 7, "total_tokens": 7} and plain["object"] == "list"
    for index, (one, other) in enumerate(zip(plain["data"], coded["data"], strict=True)):
        assert (one["object"], one["index"]) == ("embedding", index)
        assert one["embedding"] == rows[index].tolist()
        assert np.frombuffer(base64.b64decode(other["embedding"]), "<f4").tolist() == rows[index].tolist()


def test_the_router_reads_no_confidence_and_keeps_the_request_as_it_is() -> None:
    body = {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 4, "user": "u"}
    ask = parse_ask(json.dumps(body).encode(), "embeddings", "m")
    facts = ask.facts({}, "lean", "large")
    assert (facts.endpoint, facts.other_sampling, facts.temperature, facts.n) == (
        "embeddings",
        (),
        None,
        None,
    )
    copy = dict(ask.body)
    widen(ask, copy, 2)
    assert copy == body and not ask.stream
    answer = embedding_answer("m", [np.zeros(4, np.float32)], 1, "float")
    reading = Reading("embeddings")
    reading.take(answer)
    narrow(ask, answer)
    assert not reading.complete and "choices" not in answer
