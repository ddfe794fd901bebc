"""Encoders in a cluster: the classifier's example, a real MiniLM and its student, served by ONNX Runtime."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml
from conftest import Place, on_two_cores
from node_support import ROOT, Object, conditions
from test_quickstart import well

from leanmodel_api.sources import Source
from leanmodel_store.artifacts import Store
from leanmodel_store.sources import fetch

pytestmark = [pytest.mark.node, pytest.mark.timeout(3600)]
NAME = "spam-labels"
SECONDS = 2700.0
MESSAGES = 300
ASKING = """
import collections, csv, json, sys, urllib.request
url, model, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
routes, right = collections.Counter(), 0
with open("/inputs/data/sms.tsv", newline="") as lines:
    messages = list(csv.DictReader(lines, delimiter="\\t"))[-rows:]
for row in messages:
    request = urllib.request.Request(url, json.dumps({"model": model, "input": row["msg"]}).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        routes[answer.headers["x-leanmodel-route"]] += 1
        right += json.load(answer)["data"][0]["label"] == row["label"]
print(json.dumps({"routes": routes, "right": right}))
"""


def document() -> Object:
    """Return the example for a node that cannot reach an index, and has two cores for everything."""
    found: Object = yaml.safe_load((ROOT / "examples" / "quickstart" / "classifier.yaml").read_text())
    found["metadata"]["annotations"] = {"leanmodel.io/inputs": "pvc/inputs"}
    found["spec"]["large"]["source"]["uri"] = "file:encoder"
    on_two_cores(found["spec"], "1536Mi")
    for role in ("large", "lean"):
        serving = found["spec"]["serving"][role]
        del serving["kvCache"]
        serving |= {"engine": "ONNXRuntime", "maxModelLength": 256}
    return found


def encoder() -> dict[str, bytes]:
    """Return the encoder's files, fetched once into the cache that `make setup` uses too."""
    cache = Path(os.environ.get("LEANMODEL_CACHE") or Path.home() / ".cache" / "leanmodel") / "test-models"
    example = yaml.safe_load((ROOT / "examples" / "quickstart" / "classifier.yaml").read_text())
    folder = fetch(Source(uri=example["spec"]["large"]["source"]["uri"]), cache, Store(cache / "store")).path
    weights = next(folder.rglob("model.safetensors"))
    return {
        f"encoder/{path.relative_to(weights.parent)}": path.read_bytes()
        for path in weights.parent.rglob("*")
        if path.is_file()
    }


def test_a_classifier_is_made_lean_and_answers(place: Place) -> None:
    place.kubectl.put("inputs", place.namespace, "/inputs", encoder())
    began = time.monotonic()
    place.apply(document())
    try:
        place.wait(lambda: well(place.get(NAME), "Ready"), f"{NAME} is Ready", SECONDS)
        print(f"\napply to Ready: {time.monotonic() - began:.0f} s")
        found = place.get(NAME)
        assert found is not None and conditions(found)["Proven"]["status"] == "True"
        url = found["status"]["url"].removesuffix("/v1") + "/classify"
        words = ("exec", "-n", place.namespace, "inputs", "--", "python", "-c", ASKING)
        said = place.kubectl.run(*words, url, NAME, str(MESSAGES), timeout=600)
        print(place.kubectl.run("get", "lm", NAME, "-n", place.namespace), said)
        answers = json.loads(said)
        assert answers["routes"].get("lean", 0) > MESSAGES // 2
        assert sum(answers["routes"].values()) == MESSAGES
        assert answers["right"] > 0.9 * MESSAGES
    finally:
        place.kubectl.run("delete", "lm", NAME, "-n", place.namespace, "--timeout=60s", timeout=90)
