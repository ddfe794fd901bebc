"""Requests that ask for a JSON schema: inside of a certificate for such, judged by whether the answer follows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from policies_made import made
from router_double import ASK, answer, fine, router, run

from leanmodel_api.policy import LinearHead, Predictor, Scope, SignalSpec

SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
BY_SCHEMA = Predictor(
    kind="fine", name="schema", signals=(SignalSpec(name="valid-schema", params={"tells": True}),),
    feature_names=("valid_schema",), means=(0.0,), scales=(1.0,),
    heads=(LinearHead(intercept=-4.0, coefficients=(8.0,)),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("said", "asked", "route", "scope"),
    [
        ('{"name": "Ada"}', FORMAT, "lean", None),
        ('{"nam": "Ada"}', FORMAT, "escalated", None),
        ('{"name": "Ada"}', None, "large", "response_format: unset, certified for json_schema"),
        ('{"name": "Ada"}', {"type": "json_object"}, "large", "response_format: not part of the certificate"),
        (
            '{"name": "Ada"}',
            {"type": "json_schema", "json_schema": 5},
            "large",
            "response_format: not part of the certificate",
        ),
    ],
)
def test_the_answer_is_held_against_the_requests_own_schema(
    tmp_path: Path, said: str, asked: Any, route: str, scope: str | None
) -> None:
    async def lean(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert body["response_format"] == FORMAT  # the engine is told, too
        found = answer(body["model"])
        found["choices"][0]["text"] = said
        return web.json_response(found)

    async def scenario() -> None:
        policy = made(
            "cascade", predictor=BY_SCHEMA, threshold=0.5, scope=Scope(response_format="json_schema")
        )
        async with router(tmp_path, fine, lean, rules={"strategy": "Cascade", "policy": policy}) as setup:
            body = ASK if asked is None else {**ASK, "response_format": asked}
            reply = await setup.client.post("/v1/completions", json=body)
            assert reply.status_code == 200 and reply.headers["x-leanmodel-route"] == route
            assert reply.headers.get("x-leanmodel-scope") == scope
            kinds = [labels["kind"] for _, labels in setup.meters["leanmodel_out_of_scope"].calls]
            assert kinds == (["response_format"] if scope else [])

    run(scenario)
