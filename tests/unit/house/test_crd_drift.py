"""crds/leanmodel.yaml is what the pydantic models say now, and small enough for `kubectl apply`."""

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


def test_it_is_under_60_kilobytes():
    assert PATH.stat().st_size < 60_000
