"""The router's OpenAPI document says what the router does: its addresses, methods, errors and headers, and no others."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from policies_made import made
from router_double import Setup, fine, router, run
from schemathesis.specs.openapi.definitions import OPENAPI_31

from leanmodel_api.classification import EMBEDDING, TASK
from leanmodel_api.policy import Scope
from leanmodel_api.router import Backend, RouterSettings
from leanmodel_serving.router import app as app_module
from leanmodel_serving.router import overrides, statuses
from leanmodel_serving.router.ask import PATHS, TASK_ENDPOINTS, parse_ask
from leanmodel_serving.router.errors import ApiError
from leanmodel_serving.router.fields import FIELDS, Endpoint
from leanmodel_serving.router.lookups import LOOKUPS
from leanmodel_serving.router.openapi import document

SOURCES = Path(app_module.__file__).parent
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
NOT_FOR_CLIENTS = {"internal.py", "pages.py"}
LARGE = Backend(revision="large", url="http://127.0.0.1:1/large")
LEAN = Backend(revision="lean", url="http://127.0.0.1:1/lean")
MANY: list[dict[str, Any]] = [
    {},
    {"access": "Keys"},
    {"lean": LEAN, "overrides": True},
    {"overrides": True},
    {"task": TASK},
    {"task": EMBEDDING, "access": "Keys"},
]


def of(**changes: Any) -> dict[str, Any]:
    return document(RouterSettings(model="m", large=LARGE, **changes))


@pytest.mark.parametrize("changes", MANY, ids=lambda changes: " ".join(changes) or "plain")
def test_it_is_a_document_of_openapi_3_1(changes: dict[str, Any]) -> None:
    told = json.loads(json.dumps(of(**changes)))
    Draft202012Validator(OPENAPI_31).validate(told)
    for schema in [*told["components"]["schemas"].values(), *map(body_schema, posts(told).values())]:
        Draft202012Validator.check_schema(schema)


def posts(told: dict[str, Any]) -> dict[str, Any]:
    return {path: item["post"] for path, item in told["paths"].items() if "post" in item}


def body_schema(operation: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return schema


@pytest.mark.parametrize("task", [None, TASK, EMBEDDING])
def test_the_router_answers_what_is_in_it_and_nothing_else(tmp_path: Path, task: Any) -> None:
    """Every address that the router knows, every method: 404 and 405 are where the document says nothing."""

    async def scenario() -> None:
        async with router(tmp_path, fine, rules={"task": task}) as setup:
            told = (await setup.client.get("/openapi.json")).json()["paths"]
            known = {path.replace("{model}", "m") for path in (*LOOKUPS, *PATHS.values())}
            assert {path.replace("{model}", "m") for path in told} <= known
            for path in sorted(
                known | {"/", "/v1", "/v1/models/other", "/openapi.json/", "/docs", "/metrics"}
            ):
                item = told.get(path.replace("/models/m", "/models/{model}"), {})
                wanted = set(item) | ({"head"} if "get" in item else set())
                assert await taken(setup, path) == wanted, path
            asked = {PATHS[endpoint] for endpoint in TASK_ENDPOINTS[task]}
            assert {path for path, item in told.items() if "post" in item} == asked

    run(scenario)


async def taken(setup: Setup, path: str) -> set[str]:
    found = set()
    for method in METHODS:
        reply = await setup.client.request(method.upper(), path, content=b"{}" if method == "post" else None)
        if reply.status_code == 405:
            assert method.upper() not in reply.headers["allow"].split(", "), path
        # A POST without a model finds none, but it finds the address.
        model = method == "post" and reply.status_code == 404 and reply.json()["error"]["param"] == "model"
        if reply.status_code not in (404, 405) or model:
            found.add(method)
    return found


def test_every_error_that_the_router_writes_is_in_the_table() -> None:
    """Statuses and codes that stand in the sources, wherever an ApiError is made."""
    written: set[tuple[int, str]] = set()
    for path in sorted(SOURCES.glob("*.py")):
        if path.name in NOT_FOR_CLIENTS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError":
                status = node.args[0] if node.args else None
                code = next((word.value for word in node.keywords if word.arg == "code"), None)
                code = code or (node.args[3] if len(node.args) > 3 else ast.Constant(""))
                if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                    written.add((status.value, code.value))
    table = {(status, code) for status, codes in statuses.STATUSES.items() for code in codes}
    # What nobody is told: why the provider was not asked.
    assert written - table == {(503, "")}
    text = "".join(path.read_text() for path in SOURCES.glob("*.py") if path.name != "statuses.py")
    assert [code for _, code in table if code and f'"{code}"' not in text] == []


def test_every_header_of_ours_is_in_the_document() -> None:
    told = of(lean=LEAN, overrides=True)
    operation = posts(told)["/v1/chat/completions"]
    known = {item["name"] for item in operation["parameters"]}
    for reply in operation["responses"].values():
        known |= set(reply["headers"])
    written = {
        name
        for path in SOURCES.glob("*.py")
        if path.name not in {"statuses.py", "openapi.py", *NOT_FOR_CLIENTS}
        for name in re.findall(r'"(x-leanmodel-[a-z-]+)"', path.read_text())
    }
    assert {name for name in known if name.startswith("x-leanmodel")} == written
    assert set(overrides.HEADERS) <= known


def test_keys_are_in_it_where_they_are_asked_for() -> None:
    for changes, locked in (({}, False), ({"access": "Keys"}, True)):
        told = of(**changes)
        assert ("securitySchemes" in told["components"]) is locked
        for path, item in told["paths"].items():
            operation = next(iter(item.values()))
            asks = locked and (path.startswith("/v1/"))
            assert bool(operation.get("security")) is asks and ("401" in operation["responses"]) is asks, path


def test_what_the_router_answers_fits_it(tmp_path: Path) -> None:
    """Each lookup, an answer of each kind and some errors, held against the schemas and the required headers."""

    async def scenario() -> None:
        policy = made("cascade", scope=Scope(), threshold=0.4).model_dump(mode="json")
        rules = {"strategy": "Cascade", "policy": policy}
        async with router(tmp_path, fine, fine, rules=rules, max_body_bytes=2000) as setup:
            told = (await setup.client.get("/openapi.json")).json()
            for path, item in told["paths"].items():
                if "get" in item:
                    reply = await setup.client.get(path.replace("{model}", "m"))
                    fits(told, item["get"], reply)
            chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            bodies = [
                chat,
                {**chat, "stream": True},
                {**chat, "n": "2"},
                {**chat, "model": "x"},
                {**chat, "x": "y" * 3000},
            ]
            found = []
            for body in bodies:
                reply = await setup.client.post("/v1/chat/completions", json=body)
                fits(told, told["paths"]["/v1/chat/completions"]["post"], reply)
                found.append(reply.status_code)
            assert found == [200, 200, 400, 404, 413]

    run(scenario)


def fits(told: dict[str, Any], operation: dict[str, Any], reply: Any) -> None:
    said = operation["responses"][str(reply.status_code)]
    kind = reply.headers["content-type"].partition(";")[0]
    content = said["content"][kind]
    if kind == "application/json":
        schema = {**content["schema"], "components": told["components"]}
        Draft202012Validator(schema).validate(reply.json())
    missing = [
        name for name, entry in said["headers"].items() if entry["required"] and name not in reply.headers
    ]
    assert not missing


VALUES: list[Any] = [
    None, True, False, 0, 1, -3, 1.0, 0.5, "", "a", [], ["a"], [1], [None], [{}], [[]], {}, {"include_usage": 1},
    {"include_usage": [1]}, 10**400,
]  # fmt: skip


@pytest.mark.parametrize("endpoint", sorted(FIELDS))
def test_bodies_are_taken_and_refused_as_the_schema_says(endpoint: Endpoint) -> None:
    """Each field with each kind of value. JSON Schema calls 1.0 a whole number, the router and vLLM's types do not."""
    task = next(task for task, endpoints in TASK_ENDPOINTS.items() if endpoint in endpoints)
    schema = body_schema(posts(of(task=task))[PATHS[endpoint]])
    sound = {field.name: [{}] if field.items else "a" for field in FIELDS[endpoint] if field.required}
    checker = Draft202012Validator(schema)
    for name in [*(field.name for field in FIELDS[endpoint]), "temperature"]:
        for value in VALUES:
            body = {"model": "m", **sound, name: value}
            try:
                parse_ask(json.dumps(body).encode(), endpoint, "m")
                taken = True
            except ApiError as error:
                assert error.status == 400 and error.param == name
                taken = False
            if value != 1.0 or type(value) is not float:
                assert checker.is_valid(body) is taken, (name, value)
    for body in ({"model": "x", **sound}, sound, [], "m", {"model": "m"}):
        with pytest.raises(ApiError):
            parse_ask(json.dumps(body).encode(), endpoint, "m")
        assert not checker.is_valid(body)
