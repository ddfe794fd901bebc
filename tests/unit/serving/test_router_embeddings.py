"""Requests for vectors through the router: one model answers all of a list, and another kind of request is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from policies_made import certificate, made
from router_double import refuse, router, run

from leanmodel_api.policy import Scope
from leanmodel_api.serving import Price

RULES: dict[str, Any] = {"task": "text-embedding"}


async def vectors(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data = [
        {"object": "embedding", "index": at, "embedding": [float(len(text))]} for at, text in enumerate(texts)
    ]
    model = request.path.split("/")[1]
    return web.json_response({"model": model, "object": "list", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}})  # fmt: skip


def takes_all() -> Any:
    """A policy that gives everything to the lean model, as a proof of embeddings makes it."""
    found = certificate(None).model_copy(update={"certified": False})
    return made("all-lean", scope=Scope(endpoint="embeddings", metric="NeighborAgreement"), certificate=found, threshold=0.0, scores=None)  # fmt: skip


@pytest.mark.parametrize("wanted", ["hello", ["hello", "a"]], ids=["one text", "a list"])
@pytest.mark.parametrize("more", [{}, {"encoding_format": "base64", "dimensions": 1, "user": "u", "truncate_prompt_tokens": -1}], ids=["plain", "with options"])  # fmt: skip
def test_the_lean_model_gives_every_vector(tmp_path: Path, wanted: Any, more: dict[str, Any]) -> None:
    rules = {**RULES, "strategy": "Cascade", "policy": takes_all()}

    async def scenario() -> None:
        async with router(tmp_path, vectors, vectors, rules=rules, price=Price(usd_per_hour="1")) as setup:
            reply = await setup.client.post("/v1/embeddings", json={"model": "m", "input": wanted, **more})
            assert reply.status_code == 200, reply.text
            assert reply.headers["x-leanmodel-route"] == "lean" and reply.json()["model"] == "lean"
            assert "x-leanmodel-scope" not in reply.headers
            assert len(reply.json()["data"]) == (1 if isinstance(wanted, str) else 2)
            assert reply.headers["x-leanmodel-cost-basis"] != "none"
            assert [name for name, _ in setup.seen] == ["lean"]

    run(scenario)


def test_the_large_model_stands_in_for_a_lean_one_that_fails(tmp_path: Path) -> None:
    rules = {**RULES, "strategy": "Cascade", "policy": takes_all()}

    async def scenario() -> None:
        async with router(tmp_path, vectors, refuse, rules=rules) as setup:
            reply = await setup.client.post("/v1/embeddings", json={"model": "m", "input": "hello"})
            assert reply.status_code == 200 and reply.json()["model"] == "large"

    run(scenario)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/completions", {"model": "m", "prompt": "a"}, 404, "ask /v1/embeddings"),
        ("/classify", {"model": "m", "input": "a"}, 404, "ask /v1/embeddings"),
        ("/v1/embeddings", {"model": "m"}, 400, "input: expected a text"),
        ("/v1/embeddings", {"model": "x", "input": "a"}, 404, "this endpoint serves 'm'"),
    ],
)
def test_what_is_no_request_for_vectors_says_what_is(
    tmp_path: Path, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    async def scenario() -> None:
        async with router(tmp_path, vectors, rules=RULES) as setup:
            reply = await setup.client.post(path, json=body)
            assert reply.status_code == status and words in reply.json()["error"]["message"]
            assert setup.seen == []

    run(scenario)


def test_a_generator_gives_no_vectors(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, vectors) as setup:
            reply = await setup.client.post("/v1/embeddings", json={"model": "m", "input": "a"})
            assert reply.status_code == 404 and "/v1/chat/completions" in reply.json()["error"]["message"]

    run(scenario)
