"""The router's OpenAPI document: the addresses that it answers under the settings in force, and nothing more.

Made from what the router itself goes by: its tables of addresses, fields, statuses and headers, and the models of what
it answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any, get_args

from pydantic import TypeAdapter

from leanmodel_api.router import RouterSettings

from .ask import PATHS, TASK_ENDPOINTS
from .bounded import UNDECIDED
from .errors import EXTERNAL
from .fields import FIELDS, Endpoint, Field
from .http import EVENTS, JSON
from .lookups import LOOKUPS, Health, Lookup, ModelList, ModelObject
from .overrides import LEAST, MOST, ROUTE
from .route import Reason
from .statuses import ALWAYS, ASKED, ATTRIBUTION, MAY_SAY, SAID, STATUSES

_KINDS: dict[type, str] = {bool: "boolean", int: "integer", dict: "object", list: "array", str: "string"}
_REF = "#/components/schemas/{model}"
_KEY = "key"
_ROUTES = ("lean", "large", "escalated", EXTERNAL)
_SUMMARIES: dict[Endpoint | Lookup, str] = {
    "chat": "Answer a conversation",
    "completions": "Go on with a text",
    "classify": "Give each text its label, with the probabilities of all",
    "embeddings": "Give each text its vector",
    "models": "List the models: one",
    "model": "Show the model",
    "health": "Say whether the router is ready, and by what it decides",
    "document": "This document",
}
_ABOUT = (
    "Each request is answered by the lean or the large model, as the policy decides; the headers of the answer say by "
    "which, why, and under which promise. Fields that are not described go on to the engine, which checks them and "
    "refuses in its own words. HEAD is answered wherever GET is."
)
_LOOKED: dict[Lookup, str] = {"models": "ModelList", "model": "ModelObject", "health": "Health"}


def document(settings: RouterSettings) -> dict[str, Any]:
    """Return the document for the settings in force, as a JSON object of OpenAPI 3.1."""
    keys = settings.access == "Keys"
    paths: dict[str, Any] = {}
    for endpoint in TASK_ENDPOINTS[settings.task]:
        paths[PATHS[endpoint]] = {"post": _asking(endpoint, settings)}
    for path, lookup in LOOKUPS.items():
        paths[path] = {"get": _looking(path, lookup, settings)}
    if keys:
        for path, item in paths.items():
            for operation in item.values():
                operation["security"] = [{_KEY: []}] if _locked(path) else []
    scheme = {"type": "http", "scheme": "bearer", "description": "A key made by `leanmodel keys create`."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"LeanModel {settings.model}",
            "version": metadata.version("leanmodel"),
            "description": _ABOUT,
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(), **({"securitySchemes": {_KEY: scheme}} if keys else {})},
    }


def _locked(path: str) -> bool:
    return path.startswith("/v1/") or path in PATHS.values()


# ---------------------------------------------------------------- what is asked


def _asking(endpoint: Endpoint, settings: RouterSettings) -> dict[str, Any]:
    """Describe an endpoint that takes POST."""
    hidden = {405} | ({401} if settings.access is None else set()) | ({403} if settings.overrides else set())
    refusals = {
        str(status): _refused(status, STATUSES[status], engine=status < 500)
        for status in STATUSES
        if status not in hidden
    }
    content: dict[str, Any] = {JSON: {"schema": {"type": "object", "description": "As the engine answers."}}}
    told = "The answer."
    if any(field.name == "stream" for field in FIELDS[endpoint]):
        # Without a schema: OpenAPI 3.1 has none for the events of a stream.
        content[EVENTS.partition(";")[0]] = {}
        told = (
            "The answer; with stream in server-sent events: chunks, an error where it broke off, then [DONE]."
        )
    said = {**_headers({**SAID, **ALWAYS, "x-leanmodel-certificate": ATTRIBUTION["x-leanmodel-certificate"]}, required=True),
            **_headers({"x-leanmodel-policy": ATTRIBUTION["x-leanmodel-policy"], **MAY_SAY})}  # fmt: skip
    said["x-leanmodel-route"]["schema"]["enum"] = list(_ROUTES)
    if settings.limits.heartbeat is not None and EVENTS.partition(";")[0] in content:
        told += " One that was long in coming has had its headers before: what they do not say stands in comments."
        said["x-leanmodel-route"]["schema"]["enum"].append(UNDECIDED)
        for name in set(said) - {"x-leanmodel-route", *ALWAYS}:
            said[name]["required"] = False
    said["x-leanmodel-reason"]["schema"]["enum"] = list(get_args(Reason))
    return {
        "operationId": endpoint,
        "summary": _SUMMARIES[endpoint],
        "parameters": _parameters(settings),
        "requestBody": {"required": True, "content": {JSON: {"schema": _body(endpoint, settings.model)}}},
        "responses": {
            "200": {"description": told, "headers": said, "content": content},
            **refusals,
            "4XX": _refused(None, {"": "another refusal of the engine's"}, engine=True),
            "5XX": _refused(None, {"engine_error": "the engine failed, and says how"}),
        },
    }


def _body(endpoint: Endpoint, model: str) -> dict[str, Any]:
    named = {"type": "string", "const": model, "description": "The LeanModel's name."}
    fields = FIELDS[endpoint]
    return {
        "type": "object",
        "required": ["model", *(field.name for field in fields if field.required)],
        "properties": {"model": named, **{field.name: _field(field) for field in fields}},
    }


def _field(field: Field) -> dict[str, Any]:
    kinds = [_KINDS[kind] for kind in field.kinds] + ([] if field.required else ["null"])
    schema: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds, "description": field.says}
    if field.items:
        items = [_KINDS[kind] for kind in field.items]
        schema |= {"minItems": 1, "items": {"type": items[0] if len(items) == 1 else items}}
    return schema


def _parameters(settings: RouterSettings) -> list[dict[str, Any]]:
    text = {"type": "string"}
    found: dict[str, tuple[str, dict[str, Any]]] = {name: (says, text) for name, says in ASKED.items()}
    if settings.overrides:
        ways = ["large", *(["lean"] if settings.lean is not None else [])]
        found |= {
            ROUTE: ("The model that shall answer; a lean answer then promises nothing.", {**text, "enum": ways}),
            MOST: ("What it may cost, US dollars.", {"type": "number", "minimum": 0, "maximum": 10**6}),
            LEAST: ("Confidence below which a lean answer is not wanted.", {"type": "number", "minimum": 0, "maximum": 1}),
        }  # fmt: skip
    return [
        {"name": name, "in": "header", "required": False, "description": says, "schema": schema}
        for name, (says, schema) in found.items()
    ]


# ---------------------------------------------------------------- what is looked at


def _looking(path: str, lookup: Lookup, settings: RouterSettings) -> dict[str, Any]:
    """Describe an address that takes GET."""
    schema = {"$ref": _REF.format(model=_LOOKED[lookup])} if lookup in _LOOKED else {"type": "object"}
    headers = _headers(ALWAYS, required=True)
    responses: dict[str, Any] = {
        "200": {"description": "It.", "headers": headers, "content": {JSON: {"schema": schema}}}
    }
    if lookup == "health":
        responses["503"] = {**responses["200"], "description": "Not ready yet: engines are loading."}
    if settings.access == "Keys" and _locked(path):
        responses["401"] = _refused(401, STATUSES[401])
    operation: dict[str, Any] = {
        "operationId": lookup + ("" if path != "/health" else "_too"),
        "summary": _SUMMARIES[lookup],
        "responses": responses,
    }
    if lookup == "model":
        responses["404"] = _refused(404, {"": STATUSES[404][""]})
        operation["parameters"] = [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "const": settings.model}}
        ]  # fmt: skip
    return operation


# ---------------------------------------------------------------- parts of both


def _refused(status: int | None, codes: Mapping[str, str], engine: bool = False) -> dict[str, Any]:
    """Describe an error.

    Args:
        status: which; None for a range.
        codes: what each code means.
        engine: whether it may be the engine's own refusal, passed on as it came.
    """
    words = "; ".join(f"{code}: {says}" if code else says for code, says in codes.items())
    ours = {"$ref": _REF.format(model="Error")}
    schema = {"anyOf": [ours, {"$ref": _REF.format(model="EngineRefusal")}]} if engine else ours
    headers = _headers(ALWAYS, required=True) | _headers(ATTRIBUTION)
    if status in (429, 502, 503, 504):
        headers |= _headers({"retry-after": "Seconds after which another try makes sense."})
    if status == 401:
        headers |= _headers({"www-authenticate": "Bearer."})
    return {
        "description": f"{words[0].upper()}{words[1:]}.",
        "headers": headers,
        "content": {JSON: {"schema": schema}},
    }


def _headers(names: Mapping[str, str], required: bool = False) -> dict[str, dict[str, Any]]:
    return {
        name: {"description": says, "required": required, "schema": {"type": "string"}}
        for name, says in names.items()
    }


def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = {"Error": _error(ours=True), "EngineRefusal": _error(ours=False)}
    models: Iterable[type] = (ModelList, ModelObject, Health)
    for model in models:
        schema = TypeAdapter(model).json_schema(by_alias=True, ref_template=_REF, mode="serialization")
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found


def _error(ours: bool) -> dict[str, Any]:
    text, maybe = {"type": "string"}, {"type": ["string", "null"]}
    error: dict[str, Any] = {"type": "object", "required": ["message"], "properties": {"message": text}}
    if ours:
        error["required"] = ["message", "type", "param", "code"]
        error["properties"] |= {"type": text, "param": maybe, "code": maybe}
        error["additionalProperties"] = False
    return {
        "type": "object",
        "description": "An error in OpenAI's form."
        if ours
        else "What the engine says of a request that it refuses.",
        "required": ["error"],
        "properties": {"error": error},
    }
