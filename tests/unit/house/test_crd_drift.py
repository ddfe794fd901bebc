"""crds/leanmodel.yaml is what the pydantic models say now, and small enough for `kubectl apply`."""

import json

import yaml
from house import ROOT

from leanmodel_api import crd, reference

PATH = ROOT / "crds" / "leanmodel.yaml"


def test_the_file_is_what_the_models_say():
    assert PATH.read_text() == crd.render(), "run `make crd`"


def test_the_reference_is_what_the_models_say():
    assert (ROOT / "docs" / "resource.md").read_text() == reference.render(), "run `make docs`"


def test_it_is_one_definition_of_ours():
    definition = yaml.safe_load(PATH.read_text())
    assert definition["kind"] == "CustomResourceDefinition"
    assert definition["spec"]["names"]["kind"] == "LeanModel"
    assert (
        definition["metadata"]["name"]
        == f"{definition['spec']['names']['plural']}.{definition['spec']['group']}"
    )


def as_kubectl_keeps_it(text: str) -> int:
    """The bytes of a YAML object as compact JSON in the manner of Go, which writes <, > and & as six bytes each."""
    compact = json.dumps(yaml.safe_load(text), separators=(",", ":"), ensure_ascii=False)
    return len(compact.encode()) + 5 * sum(map(compact.count, "<>&"))


def test_client_side_apply_can_keep_it_in_an_annotation():
    # `kubectl apply` keeps the whole object as JSON in the annotation last-applied-configuration, and the API server
    # takes 262,144 bytes of annotations in all: past that it refuses the definition. Half is left for what other
    # tools (Helm, Argo CD, Flux) write beside it, and so that nobody meets the wall by adding one field.
    assert as_kubectl_keeps_it(PATH.read_text()) < 262_144 // 2


def test_the_bytes_are_counted_as_go_writes_them():
    assert as_kubectl_keeps_it('a: "<&>"') == len('{"a":"') + 3 * len("\\u003c") + len('"}')
