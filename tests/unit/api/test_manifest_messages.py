"""Bad manifests: each costs a clear error that names the field, what was found, and what to write."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_api.errors import ManifestError
from leanmodel_api.manifest import load
from leanmodel_api.resource import LeanModel

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").rglob("leanmodel.yaml"))
QUICKSTART = yaml.safe_load((Path(__file__).parents[3] / "examples/quickstart/leanmodel.yaml").read_text())
DELETE = object()


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """Return the quickstart's manifest with values put (or deleted) at paths such as spec.lean.steps.0.type."""
    document = copy.deepcopy(QUICKSTART)
    for path, value in changes:
        place: Any = document
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            place = place[part]
        if value is DELETE:
            del place[last]
        else:
            place[last] = value
    return document


PRUNE = {"type": "Prune", "keepLayers": 4}
QUANTIZE = {"type": "Quantize", "scheme": "W8A8"}
CASES: list[tuple[str, list[tuple[str, Any]], str, str]] = [
    # what, changes, the field that the message names, words of finding or remedy
    ("no api version", [("apiVersion", DELETE)], "apiVersion", "is missing"),
    ("other api version", [("apiVersion", "leanmodel.io/v9")], "apiVersion", "leanmodel.io/v1alpha1"),
    ("other kind", [("kind", "LeenModel")], "kind", "'LeanModel'"),
    ("no name", [("metadata.name", DELETE)], "metadata.name", "is missing"),
    ("upper-case name", [("metadata.name", "Spam")], "metadata.name", "'Spam'"),
    ("no spec", [("spec", DELETE)], "spec", "is missing"),
    ("spec a list", [("spec", [])], "spec", "an object"),
    ("misspelt field", [("spec.eveluation", {})], "spec.eveluation", "did you mean 'evaluation'"),
    ("unknown field", [("spec.xyzzy", 1)], "spec.xyzzy", "fields here: task"),
    ("misspelt deep field", [("spec.large.finetune.epoch", "1")], "spec.large.finetune.epoch", "did you mean 'epochs'"),
    ("misspelt in a step", [("spec.lean.steps.0.keepLayer", 3)], "spec.lean.steps[0].keepLayer", "did you mean 'keepLayers'"),
    ("field of another step", [("spec.lean.steps.0.scheme", "W8A8")], "spec.lean.steps[0].scheme", "fields here: type, method"),
    ("step without type", [("spec.lean.steps.0.type", DELETE)], "spec.lean.steps[0].type", "has no type"),
    ("unknown step", [("spec.lean.steps.0.type", "Shrink")], "spec.lean.steps[0].type", "'Prune', 'Distill', 'Quantize'"),
    ("reserved step", [("spec.lean.steps.0", {"type": "Factorize"})], "spec.lean.steps[0].type", "not supported yet"),
    ("number for a string", [("spec.routing.promise.retain", 0.98)], "spec.routing.promise.retain", '"0.98"'),
    ("per cent", [("spec.routing.promise.retain", "98")], "spec.routing.promise.retain", '"0.95"'),
    ("not a number", [("spec.large.finetune.learningRate", "fast")], "spec.large.finetune.learningRate", '"0.0001"'),
    ("string for a whole number", [("spec.lean.steps.0.keepLayers", "four")], "spec.lean.steps[0].keepLayers", "whole number"),
    ("no layers", [("spec.lean.steps.0.keepLayers", 0)], "spec.lean.steps[0].keepLayers", "greater than or equal to 1"),
    ("text for a boolean", [("spec.suspend", "perhaps")], "spec.suspend", "true or false"),
    ("wrong enum", [("spec.lean.steps.2.scheme", "W3A3")], "spec.lean.steps[2].scheme", "'W4A16'"),
    ("list for an object", [("spec.serving", [])], "spec.serving", "an object"),
    ("object for a list", [("spec.dataSets", {})], "spec.dataSets", "a list"),
    ("no steps", [("spec.lean.steps", [])], "spec.lean.steps", "at least 1"),
    ("bad memory", [("spec.jobs", {"compress": {"memory": "lots"}})], "spec.jobs.compress.memory", '"4Gi"'),
    ("bad digest", [("spec.large.source.digest", "md5:1")], "spec.large.source.digest", "sha256:"),
    ("bad duration", [("spec.rollout", {"steps": [{"weight": 5, "pause": {"duration": "soon"}}]})], "spec.rollout.steps[0].pause.duration", '"10m"'),
    ("bad port", [("spec.serving", {"router": {"port": 80}})], "spec.serving.router.port", "1024"),
    ("two sources of large", [("spec.large.external", {"baseUrl": "https://x.example/v1", "model": "m"}), ("spec.large.finetune", DELETE)], "spec.large:", "both source and external"),
    ("no source of large", [("spec.large.source", DELETE)], "spec.large:", "neither source nor external"),
    ("lean made twice", [("spec.lean.source", {"uri": "file:x"})], "spec.lean:", "exactly one of source, steps and search"),
    ("lean made never", [("spec.lean", {})], "spec.lean:", "none of source, steps and search"),
    ("quantise before prune", [("spec.lean.steps", [QUANTIZE, PRUNE])], "spec.lean.steps[1].type", "put Quantize last"),
    ("quantise before distil", [("spec.lean.steps", [QUANTIZE, {"type": "Distill"}])], "spec.lean.steps[1].type", "Distill after the Quantize"),
    ("quantise twice", [("spec.lean.steps", [QUANTIZE, QUANTIZE])], "spec.lean.steps[1].type", "put Quantize last"),
    ("prune by nothing", [("spec.lean.steps.0.keepLayers", DELETE)], "spec.lean.steps[0]:", "neither keepLayers nor ratio"),
    ("prune by both", [("spec.lean.steps.0.ratio", "0.5")], "spec.lean.steps[0]:", "both keepLayers and ratio"),
    ("protects more than it keeps", [("spec.lean.steps.0.protectFirst", 9)], "spec.lean.steps[0].keepLayers", "less than protectFirst"),
    ("data set of no name", [("spec.evaluation.dataSet", "sns")], "spec.evaluation.dataSet", "write one of sms"),
    ("no data set", [("spec.dataSets", [])], "spec.large.finetune.dataSet", "there is no data set"),
    ("two data sets, none named", [("spec.dataSets", [QUICKSTART["spec"]["dataSets"][0], {**QUICKSTART["spec"]["dataSets"][0], "name": "b"}])], "spec.evaluation.dataSet", "write which: one of sms, b"),
    ("same name twice", [("spec.dataSets", [QUICKSTART["spec"]["dataSets"][0]] * 2)], "spec.dataSets:", "stands 2 times"),
    ("parts above one", [("spec.dataSets.0.split.train", "0.9")], "spec.dataSets[0].split", "add up to"),
    ("no prompt", [("spec.dataSets.0.prompt", {})], "spec.dataSets[0].prompt", "neither user nor text"),
    ("prompt without a column", [("spec.dataSets.0.prompt.user", "hello")], "spec.dataSets[0].prompt", "no column stands"),
    ("raw prompt with a system message", [("spec.dataSets.0.prompt", {"text": "{msg}", "system": "s"})], "spec.dataSets[0].prompt.system", "raw prompt"),
    ("one choice", [("spec.dataSets.0.choices", ["ham"])], "spec.dataSets[0].choices", "at least 2"),
    ("same choice twice", [("spec.dataSets.0.choices", ["ham", "ham"]), ("spec.dataSets.0.positive", "ham")], "spec.dataSets[0].choices", "twice"),
    ("choices without answer", [("spec.dataSets.0.answer", DELETE)], "spec.dataSets[0].answer", "{label}"),
    ("positive is no choice", [("spec.dataSets.0.positive", "eggs")], "spec.dataSets[0].positive", "not among choices"),
    ("metric without choices", [("spec.dataSets.0.choices", DELETE), ("spec.dataSets.0.positive", DELETE)], "spec.evaluation.metric", "has no choices"),
    ("gate of two bounds", [("spec.evaluation.gates.0.max", "1")], "spec.evaluation.gates[0]:", "both min and max"),
    ("gate of no bound", [("spec.evaluation.gates.0.min", DELETE)], "spec.evaluation.gates[0]:", "neither min nor max"),
    ("gate above the promise", [("spec.evaluation.gates.0.min", "0.99")], "spec.evaluation.gates[0].min", "nothing is ever escalated"),
    ("gate on saving without prices", [("spec.evaluation.gates.0", {"metric": "Saving", "min": "0.1"}), ("spec.pricing", DELETE)], "spec.evaluation.gates[0]:", "needs prices"),
    ("gates without lean", [("spec.lean", DELETE)], "spec.evaluation.gates", "no lean model"),
    ("price of two bases", [("spec.pricing.lean", {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "1"})], "spec.pricing:", "different bases"),
    ("half a price", [("spec.pricing.lean", {"inputUSDPerMillionTokens": "1"})], "spec.pricing.lean", "one token price of two"),
    ("no price", [("spec.pricing.lean", {})], "spec.pricing.lean", "has no price"),
    ("sampling", [("spec.evaluation.sampling.temperature", "0.7")], "spec.evaluation.sampling.temperature", "disagrees with itself"),
    ("replicas", [("spec.serving", {"large": {"minReplicas": 3, "maxReplicas": 2}})], "spec.serving.large.maxReplicas", "less than minReplicas"),
    ("unknown scheme", [("spec.large.source.uri", "ftp://x/y")], "spec.large.source.uri", "pypi:"),
    ("reserved scheme", [("spec.large.source.uri", "s3://bucket/key")], "spec.large.source.uri", "not supported yet"),
    ("external", [("spec.large", {"external": {"baseUrl": "https://x.example/v1", "model": "m"}})], "spec.large.external", "not supported yet"),
    ("search", [("spec.lean", {"search": {}})], "spec.lean.search", "not supported yet"),
    ("task", [("spec.task", "text-embedding")], "spec.task", "not supported yet"),
    ("strategy", [("spec.routing.strategy", "Predictive")], "spec.routing.strategy", "not supported yet"),
    ("providers", [("spec.routing.externalProviders", "Allowed")], "spec.routing.externalProviders", "not supported yet"),
    ("budget", [("spec.routing.budget", {"largeUSDPerHour": "20"})], "spec.routing.budget", "not supported yet"),
    ("scaling", [("spec.serving", {"lean": {"maxReplicas": 3}})], "spec.serving.lean.maxReplicas", "not supported yet"),
    ("gpu", [("spec.serving", {"lean": {"resources": {"gpu": 1}}})], "spec.serving.lean.resources.gpu", "not supported yet"),
    ("rollout", [("spec.rollout", {"steps": [{"weight": 5}]})], "spec.rollout.steps", "not supported yet"),
    ("pruning heads", [("spec.lean.steps.0.method", "Heads")], "spec.lean.steps[0].method", "not supported yet"),
    ("hidden states", [("spec.lean.steps.1.objectives", ["Hidden"])], "spec.lean.steps[1].objectives", "not supported yet"),
    ("awq", [("spec.lean.steps.2.algorithm", "AWQ")], "spec.lean.steps[2].algorithm", "not supported yet"),
    ("overrides", [("spec.serving", {"overrides": {"podTemplate": {}}})], "spec.serving.overrides", "not supported yet"),
    ("bucket store", [("spec.store", {"uri": "s3://b"})], "spec.store.uri", "not supported yet"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "field", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_bad_manifest_names_field_and_remedy(changes: list[tuple[str, Any]], field: str, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load(changed(*changes))
    lines = [line for line in str(caught.value).splitlines() if line.startswith(field)]
    assert lines, f"no line starts with {field!r}:\n{caught.value}"
    assert any(words in line for line in lines), f"{words!r} is not said:\n{caught.value}"


@pytest.mark.parametrize("document", [None, [], "text", 3], ids=repr)
def test_document_that_is_no_object(document: object) -> None:
    with pytest.raises(ManifestError, match="apiVersion, kind, metadata and spec"):
        load(document)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_examples_are_valid_and_survive_the_round_trip(path: Path) -> None:
    model = load(yaml.safe_load(path.read_text()))
    again = LeanModel.model_validate(model.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert again == model


def _places(value: Any, path: str = "") -> list[str]:
    """Return the paths of all values of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, item in items for p in (f"{path}{key}", *_places(item, f"{path}{key}."))]


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_places(QUICKSTART)), JUNK), min_size=1, max_size=3))
def test_junk_anywhere_is_accepted_or_refused_in_our_words(changes: list[tuple[str, Any]]) -> None:
    document = copy.deepcopy(QUICKSTART)
    for path, value in changes:
        try:
            document = changed_in(document, path, value)
        except (KeyError, TypeError, IndexError, AttributeError):
            continue  # an earlier change took the place away
    try:
        load(document)
    except ManifestError as error:
        assert error.issues
        assert all(issue.field and issue.found for issue in error.issues)


def changed_in(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    place: Any = document
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place[part]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("spec.serving.lean.maxReplicas", {"serving": {"lean": {"maxReplicas": 4}}}),
        ("spec.serving.large.resources.gpu", {"serving": {"large": {"resources": {"gpu": 1}}}}),
        ("spec.serving.overrides", {"serving": {"overrides": {"podTemplate": {}}}}),
        ("spec.store.uri", {"store": {"uri": "pvc://claim/folder"}}),
    ],
)
def test_what_takes_a_cluster_is_refused_on_one_machine_alone(field, spec):
    document = changed()
    document["spec"] |= spec
    with pytest.raises(ManifestError) as refused:
        load(document)
    (issue,) = refused.value.issues
    assert issue.field == field and "on one machine" in issue.found
    assert load(document, "Cluster").metadata.name
