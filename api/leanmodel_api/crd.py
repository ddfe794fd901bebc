"""The CustomResourceDefinition, generated from the models so that schema and code cannot drift apart."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from .cel import RULES
from .resource import Spec
from .status import Status

COLUMNS = [
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Lean", "type": "string", "jsonPath": ".status.stableRevision.name"},
    {"name": "Retained", "type": "string", "jsonPath": ".status.report.qualityRetained"},
    {"name": "Saved", "type": "string", "jsonPath": ".status.report.saving"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]
_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9 ./()-]*[A-Za-z0-9.)])?")
"""Strings that YAML takes for strings without quotes."""
_KEPT = (
    "type", "description", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
    "required", "default", "properties", "items", "additionalProperties",
)  # fmt: skip


def structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema as a Kubernetes structural schema.

    References are put in place, ``X | null`` becomes an optional X, a union of objects becomes one object
    with the members' fields together (the cross-field rules then say which go with which), and constants
    become enums.
    """
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    members = [m for m in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) if m.get("type") != "null"]
    if members:
        own = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf", "discriminator")}
        inner = [structural(member, definitions) for member in members]
        merged = inner[0] if len(inner) == 1 else _union(inner)
        own = {key: value for key, value in own.items() if not (key == "default" and value is None)}
        return {**merged, **{key: value for key, value in own.items() if key in _KEPT}}
    result = {
        key: schema[key] for key in _KEPT if key in schema and not (key == "default" and schema[key] is None)
    }
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if "properties" in result:
        result["properties"] = {
            name: structural(value, definitions) for name, value in result["properties"].items()
        }
        result.pop("additionalProperties", None)
    if isinstance(result.get("items"), dict):
        result["items"] = structural(result["items"], definitions)
    if result.get("additionalProperties") is True:
        del result["additionalProperties"]
        result["x-kubernetes-preserve-unknown-fields"] = True
    return result


def _union(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one object schema that accepts each of the given ones; only what all require is required."""
    properties: dict[str, Any] = {}
    for schema in objects:
        for name, value in schema["properties"].items():
            known = properties.setdefault(name, dict(value))
            if "enum" in known and "enum" in value:
                known["enum"] = list(dict.fromkeys([*known["enum"], *value["enum"]]))
            # Each type has its own defaults. One in the schema would be written into objects of every type.
            known.pop("default", None)
            if name == "type":
                known["description"] = "Kind of step; see docs/resource.md for the fields of each."
    required = sorted(set.intersection(*(set(schema.get("required", ())) for schema in objects)))
    return {"type": "object", "properties": properties, "required": required}


def _add_rules(top: dict[str, Any]) -> None:
    """Put the CEL rules where they belong, and say that data sets are a map by name."""
    for place, rules in RULES.items():
        node = top
        for word in filter(None, place.split(".")):
            node = node["properties"][word.removesuffix("[]")]
            node = node["items"] if word.endswith("[]") else node
        node["x-kubernetes-validations"] = [{"rule": rule, "message": message} for rule, message in rules]
    named = top["properties"]["spec"]["properties"]["dataSets"]
    # Unique names; and two appliers of two data sets do not overwrite each other.
    named |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


def definition() -> dict[str, Any]:
    """Return the CustomResourceDefinition as an object."""
    parts = {}
    for name, model in (("spec", Spec), ("status", Status)):
        schema = model.model_json_schema(by_alias=True, mode="validation")
        parts[name] = structural(schema, schema.get("$defs", {}))
    for default in ("dataSets", "evaluation", "routing", "serving", "jobs", "rollout"):
        parts["spec"]["properties"][default].pop("default", None)
    top: dict[str, Any] = {
        "type": "object",
        "description": "This large model's answers, at this quality, for as little money as possible.",
        "required": ["spec"],
        "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
                       "metadata": {"type": "object"}, **parts},
    }  # fmt: skip
    _add_rules(top)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "leanmodels.leanmodel.io"},
        "spec": {
            "group": "leanmodel.io",
            "names": {
                "kind": "LeanModel", "listKind": "LeanModelList", "plural": "leanmodels", "singular": "leanmodel",
                "shortNames": ["lm"], "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1alpha1", "served": True, "storage": True, "subresources": {"status": {}},
                    "additionalPrinterColumns": COLUMNS,
                    "schema": {"openAPIV3Schema": top},
                }
            ],
        },
    }  # fmt: skip


def render() -> str:
    """Return the definition as YAML text (a strict subset: what JSON strings and block maps need)."""
    return (
        "# Generated by `make crd` from api/leanmodel_api; do not edit.\n"
        + "\n".join(_yaml(definition(), 0))
        + "\n"
    )


def _yaml(value: Any, depth: int) -> list[str]:
    """Write block YAML without a YAML library: the contract depends on pydantic alone."""
    pad = "  " * depth
    lines: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, list) and item and not any(isinstance(one, dict | list) for one in item):
                lines.append(f"{pad}{key}: [{', '.join(map(_scalar, item))}]")
            elif isinstance(item, dict | list) and item:
                lines += [f"{pad}{key}:", *_yaml(item, depth + (isinstance(item, dict)))]
            else:
                lines.append(f"{pad}{key}: {_scalar(item)}")
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                first, *rest = _yaml(item, depth + 1)
                lines += [f"{pad}- {first.strip()}", *rest]
            else:
                lines.append(f"{pad}- {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    """Return a scalar (or an empty collection) as JSON, which YAML understands; plain words stay bare."""
    if (
        isinstance(value, str)
        and _PLAIN.fullmatch(value)
        and value.lower() not in ("true", "false", "yes", "no", "null", "on", "off", "y", "n")
    ):
        return value
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(render())
