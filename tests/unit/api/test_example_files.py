"""The examples are LeanModels that can be carried out: fields, rules across fields, and nothing that is not built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from leanmodel_api.manifest import load

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "examples").rglob("*.yaml"))
SCHEMA = yaml.safe_load((ROOT / "crds" / "leanmodel.yaml").read_text())["spec"]["versions"][0]["schema"]
KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def unknown(value: Any, schema: dict[str, Any], at: str) -> list[str]:
    """Return what the definition would drop or refuse: fields that it does not have, values of another kind."""
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
        return []
    if "type" in schema and not isinstance(value, KINDS[schema["type"]]):
        return [f"{at} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at} is none of {schema['enum']}"]
    if isinstance(value, list):
        return [
            found
            for index, one in enumerate(value)
            for found in unknown(one, schema["items"], f"{at}[{index}]")
        ]
    if not isinstance(value, dict) or ("properties" not in schema and "additionalProperties" not in schema):
        return []
    found = [f"{at}.{name} is missing" for name in schema.get("required", ()) if name not in value]
    for name, one in value.items():
        inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
        found += [f"{at}.{name} is unknown"] if not inner else unknown(one, inner, f"{at}.{name}")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_an_example_is_what_the_definition_and_the_rules_take(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    model = load(document)
    assert model.kind == "LeanModel"
    body = {name: value for name, value in document.items() if name == "spec"}
    assert unknown(body, {**SCHEMA["openAPIV3Schema"], "required": ["spec"]}, "") == []
    for data in model.spec.data_sets:
        if data.source.uri.startswith("file:"):
            assert (file.parent / data.source.uri.removeprefix("file:")).exists(), (
                "the data is beside the example"
            )


def test_what_the_definition_lacks_is_found() -> None:
    document = yaml.safe_load(FILES[0].read_text())["spec"]
    schema = SCHEMA["openAPIV3Schema"]["properties"]["spec"]
    assert unknown({**document, "colour": "red"}, schema, "spec") == ["spec.colour is unknown"]
    assert unknown({**document, "task": "cooking"}, schema, "spec")[0].startswith("spec.task is none of")
