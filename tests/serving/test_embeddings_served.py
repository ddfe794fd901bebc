"""Two sentence encoders on ONNX Runtime behind the router: vectors, encodings, batches, errors, and OpenAI's client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from serving_support import NAME, READY_S, until
from test_classifiers_served import TEXTS, Classifiers, made

pytestmark = pytest.mark.long

BIG, SMALL = "vectors-float", "vectors-int8"


class Embedders(Classifiers):
    """A host whose models give vectors."""

    def write(self, **changes: Any) -> int:
        return super().write(**{"large": self.backend(BIG), "task": "text-embedding", **changes})

    def embed(self, text: Any, **more: Any) -> Any:
        return self.client.post("/v1/embeddings", json={"model": NAME, "input": text, **more})


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedders]:
    folder = made()
    stack = Embedders(tmp_path_factory.mktemp("vectors"), {name: folder / name for name in (BIG, SMALL)})
    stack.write()
    stack.want(BIG, SMALL)
    stack.start()
    try:
        until(lambda: stack.ready(BIG, SMALL, "router"), READY_S, "both encoders answer")
        yield stack
    finally:
        code = stack.stop()
        stack.client.close()
    assert code == 0, stack.log()


def test_an_answer_has_openais_form_and_torchs_numbers(both: Embedders) -> None:
    expected = json.loads((both.models[BIG] / "expected.json").read_text())
    for text, vector in expected.items():
        reply = both.embed(text)
        body = reply.json()
        assert reply.status_code == 200 and body["object"] == "list" and body["model"] == BIG
        (found,) = body["data"]
        assert (found["object"], found["index"]) == ("embedding", 0)
        assert found["embedding"] == pytest.approx(vector, abs=1e-4)
        words = len(text.split()) + 2
        assert body["usage"] == {"prompt_tokens": words, "total_tokens": words}
        assert reply.headers["x-leanmodel-route"] == "large"
        coded = both.embed(text, encoding_format="base64").json()["data"][0]["embedding"]
        assert np.frombuffer(base64.b64decode(coded), "<f4") == pytest.approx(vector, abs=1e-4)


def test_openais_client_gets_vectors_of_a_list(both: Embedders) -> None:
    from openai import OpenAI

    with OpenAI(base_url=f"{str(both.client.base_url).rstrip('/')}/v1", api_key="none") as client:
        found = client.embeddings.create(model=NAME, input=TEXTS)
        assert [item.index for item in found.data] == list(range(len(TEXTS)))
        assert found.usage.prompt_tokens == 4 * len(TEXTS)
        alone = client.embeddings.create(model=NAME, input=TEXTS[3], encoding_format="float")
    assert found.data[3].embedding == pytest.approx(alone.data[0].embedding, abs=1e-4)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/embeddings", {"model": NAME}, 400, "input: expected a text"),
        ("/v1/embeddings", {"model": NAME, "input": [1, 2]}, 400, "token numbers"),
        ("/v1/embeddings", {"model": NAME, "input": "a", "dimensions": 8}, 400, "have 32 numbers"),
        ("/v1/embeddings", {"model": NAME, "input": "win " * 80}, 400, "takes 64"),
        ("/v1/embeddings", {"model": "other", "input": "x"}, 404, "this endpoint serves"),
        ("/classify", {"model": NAME, "input": "x"}, 404, "ask /v1/embeddings"),
        ("/v1/completions", {"model": NAME, "prompt": "x"}, 404, "ask /v1/embeddings"),
    ],
)
def test_what_cannot_be_answered_says_why(
    both: Embedders, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    reply = both.client.post(path, json=body)
    assert reply.status_code == status
    assert words in reply.json()["error"]["message"]


def test_the_lean_model_takes_all_and_gives_nearly_the_same_vectors(both: Embedders) -> None:
    large = [item["embedding"] for item in both.embed(TEXTS).json()["data"]]
    both.configure(lean=both.backend(SMALL), strategy="AllLean")
    try:
        reply = both.embed(TEXTS, user="somebody")
        assert reply.headers["x-leanmodel-route"] == "lean" and reply.json()["model"] == SMALL
        assert float(reply.headers["x-leanmodel-cost-usd"]) > 0
        lean = [item["embedding"] for item in reply.json()["data"]]
        cosines = (np.array(large) * np.array(lean)).sum(axis=1)
        assert cosines.min() > 0.9
    finally:
        both.configure()
