"""Apply, Ready, an answer: the whole way once, with real weights, KubeRay, Ray Serve and vLLM."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from asking import pods
from conftest import Place
from node_support import Object, conditions, is_true, option, wait

NAME = "smoke"
SECONDS = float(option("SECONDS", "900"))
"""From apply to Ready at most; two cores that do nothing else need far less."""
pytestmark = [pytest.mark.node, pytest.mark.timeout(SECONDS + 600)]
ASKING = """
import json, sys, urllib.request
url, model = sys.argv[1:]
body = {"model": model, "messages": [{"role": "user", "content": "What is 16 plus 8?"}], "max_tokens": 8}
request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode(),
                                 {"content-type": "application/json"})
with urllib.request.urlopen(request, timeout=60) as answer:
    print(json.dumps({"route": answer.headers["x-leanmodel-route"], **json.load(answer)}))
"""


@pytest.fixture(scope="module")
def ready(place: Place, manifest: Callable[..., Object]) -> Object:
    """The LeanModel, once its generation is fully out."""
    began = time.monotonic()
    place.apply(manifest(NAME))
    place.wait(lambda: is_true(place.get(NAME), "Ready"), f"{NAME} is Ready", SECONDS)
    print(f"\napply to Ready: {time.monotonic() - began:.0f} s")
    found = place.get(NAME)
    assert found is not None
    return found


@pytest.fixture
def forwarded(place: Place, ready: Object) -> Iterator[str]:
    """The Service's address from outside of the cluster."""
    words = (
        "port-forward",
        "-n",
        place.namespace,
        f"service/lm-{NAME}",
        f":{urlsplit(ready['status']['url']).port}",
    )
    with subprocess.Popen(place.kubectl.command(*words), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()  # Forwarding from 127.0.0.1:PORT -> 8000
        yield f"http://{said.split()[2]}/v1"
        process.terminate()


def ask(url: str, name: str = NAME) -> Object:
    """Ask once; return the answer."""
    body = {"model": name, "messages": [{"role": "user", "content": "What is 16 plus 8?"}], "max_tokens": 8}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {"route": answer.headers["x-leanmodel-route"], **json.load(answer)}


def test_all_conditions_say_so(ready: Object) -> None:
    found = conditions(ready)
    true = {kind for kind, condition in found.items() if condition["status"] == "True"}
    assert true == {"Accepted", "Compressed", "Proven", "Serving", "Ready"}
    status = ready["status"]
    assert status["phase"] == "Ready"
    assert 0 < float(status["report"]["sizeRatio"]) < 0.65
    assert status["largeRevision"]["name"] != status["stableRevision"]["name"]
    assert "progress" not in status


def test_the_service_answers_inside(place: Place, ready: Object) -> None:
    words = (
        "exec",
        "-n",
        place.namespace,
        "inputs",
        "--",
        "python",
        "-c",
        ASKING,
        ready["status"]["url"],
        NAME,
    )
    answer = json.loads(place.kubectl.run(*words))
    assert answer["choices"][0]["message"]["content"]
    assert answer["route"] in ("lean", "large", "escalated")


def test_the_service_answers_outside(forwarded: str) -> None:
    answer = ask(forwarded)
    assert answer["choices"][0]["message"]["content"]
    assert answer["model"].startswith(("lean-", "large-"))


def test_haproxys_own_errors_are_of_openais_form_too(place: Place, ready: Object) -> None:
    """What it says of 502, 503 and 504 stands in the page that the server's image brings."""
    (head,) = pods(place, NAME, "head")
    # Serve keeps it in a folder of the node's name.
    script = 'cat "${RAY_SERVE_HAPROXY_CONFIG_FILE_LOC%/*}"/*/haproxy.cfg'
    config = place.kubectl.run("exec", "-n", place.namespace, head, "--", "sh", "-c", script)
    pages = {code: page for code, page in re.findall(r"errorfile (50[234]) (\S+)", config)}
    assert set(pages) == {"502", "503", "504"}
    (page,) = set(pages.values())
    said = place.kubectl.run("exec", "-n", place.namespace, head, "--", "cat", page)
    assert json.loads(said.splitlines()[-1])["error"]["code"] == "no_replica"


def test_kubectl_shows_it(place: Place, ready: Object) -> None:
    table = place.kubectl.run("get", "lm", "-n", place.namespace)
    print(f"\n{table}")
    heads, row = (line.split() for line in table.splitlines()[:2])
    assert heads[0] == "NAME" and row[0] == NAME
    assert row[heads.index("READY")] == "True"
    described = place.kubectl.run("describe", "lm", NAME, "-n", place.namespace)
    assert "this generation is fully out" in described
    events = place.kubectl.list("events", place.namespace)
    reasons = {event["reason"] for event in events if event["involvedObject"]["kind"] == "LeanModel"}
    assert "Ready" in reasons


def test_results_are_recorded_and_jobs_gone(place: Place, ready: Object) -> None:
    owned = f"leanmodel.io/name={NAME}"
    wait(lambda: not place.kubectl.list("jobs", place.namespace, owned), "finished Jobs are deleted", 60)
    recorded = place.kubectl.list("configmaps", place.namespace, f"{owned},leanmodel.io/kind=result")
    assert len(recorded) == 3


def test_deleting_leaves_nothing(place: Place, ready: Object) -> None:
    place.kubectl.run("delete", "lm", NAME, "-n", place.namespace, "--timeout=60s", timeout=90)
    kinds = "jobs,configmaps,secrets,serviceaccounts,pdb,services,pvc,rayservices,rayclusters,pods"

    def left() -> list[str]:
        items = place.kubectl.list(kinds, place.namespace)
        return [item["metadata"]["name"] for item in items if NAME in item["metadata"]["name"]]

    place.wait(lambda: not left(), "nothing of it is left", 180)
