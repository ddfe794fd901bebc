"""The quickstart's manifest in a cluster: fine-tuned, made lean, proven, and both routes used."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from conftest import Place, on_two_cores
from node_support import ROOT, Object, conditions, is_true

pytestmark = [pytest.mark.node, pytest.mark.timeout(5400)]
NAME = "spam-filter"
SECONDS = 4500.0
"""Alone on two cores the same work takes a quarter of an hour; here a control plane and seven pods share them."""
ASKING = """
import collections, csv, json, sys, urllib.error, urllib.request
url, model, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
routes, right = collections.Counter(), 0
with open("/inputs/data/sms.tsv", newline="") as lines:
    messages = list(csv.DictReader(lines, delimiter="\\t"))[-rows:]
def content(answer, stream):
    if not stream:
        return json.load(answer)["choices"][0]["message"]["content"]
    events = [json.loads(line[6:]) for line in answer if line.startswith(b"data: {")]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])

for number, row in enumerate(messages):
    stream = number % 10 == 0
    body = {"model": model, "max_tokens": 4, "temperature": 0, "stream": stream, "messages": [
        {"role": "system", "content": "Spam or ham?"}, {"role": "user", "content": row["msg"]}]}
    request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        routes[answer.headers["x-leanmodel-route"]] += 1
        right += content(answer, stream).strip() == row["label"]
refused = 0
for more in ({"stop": ["q"]}, {"max_tokens": "four"}):  # out of the certificate's scope; refused
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **more}
    request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=120).close()
    except urllib.error.HTTPError as error:
        refused += error.code == 400
print(json.dumps({"routes": routes, "right": right, "refused": refused}))
"""


def document() -> Object:
    """Return the quickstart's manifest for a node that cannot reach an index, and has two cores for everything."""
    found: Object = yaml.safe_load((ROOT / "examples" / "quickstart" / "leanmodel.yaml").read_text())
    found["metadata"]["annotations"] = {"leanmodel.io/inputs": "pvc/inputs"}
    found["spec"]["large"]["source"]["uri"] = "file:model"
    on_two_cores(
        found["spec"], "4Gi"
    )  # with 3Gi Ray ends the large model's replica in the middle of the proof
    return found


def well(item: Object | None, kind: str) -> bool:
    """Return whether a condition is true; what has failed for good is not waited for any longer."""
    assert (item or {}).get("status", {}).get("phase") != "Failed", conditions(item)
    return is_true(item, kind)


def test_from_the_manifest_to_both_routes(place: Place) -> None:
    rows = 300
    began = time.monotonic()
    place.apply(document())
    try:
        place.wait(lambda: well(place.get(NAME), "Serving"), "the large model answers", SECONDS)
        print(f"\napply to Serving: {time.monotonic() - began:.0f} s")
        place.wait(lambda: well(place.get(NAME), "Ready"), f"{NAME} is Ready", SECONDS)
        print(f"apply to Ready: {time.monotonic() - began:.0f} s")
        found = place.get(NAME)
        assert found is not None and conditions(found)["Proven"]["status"] == "True"
        words = ("exec", "-n", place.namespace, "inputs", "--", "python", "-c", ASKING)
        said = place.kubectl.run(*words, found["status"]["url"], NAME, str(rows), timeout=1200)
        print(place.kubectl.run("get", "lm", NAME, "-n", place.namespace), said)
        answers = json.loads(said)
        assert answers["routes"].get("lean", 0) > rows // 2
        assert answers["routes"].get("escalated", 0) > 0
        assert answers["right"] > 0.9 * rows
        assert answers["refused"] == 1
    finally:
        place.kubectl.run("delete", "lm", NAME, "-n", place.namespace, "--timeout=60s", timeout=90)
