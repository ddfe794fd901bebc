"""Keys, a budget and a provider in a cluster: who may ask, for how much, and what is answered when both models are lost."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from asking import pods
from conftest import Place
from node_support import Object, is_true
from watching import Watching

pytestmark = [pytest.mark.node, pytest.mark.timeout(2400)]
NAME = "guarded"
SECONDS = 900.0
# Nobody listens there: the provider is asked, and is down.
PROVIDER = {"external": {"baseUrl": "https://127.0.0.1:9/v1", "model": "theirs", "apiKeySecret": "their-key"}}
PRICE = {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "1"}


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: Object


def guard(spec: Object) -> None:
    """Ask for keys, bound what is spent, and name a provider."""
    spec["routing"] |= {
        "budget": {"usdPerHour": "5", "usdPerDay": "50"},
        "externalProviders": "Allowed",
        "fallback": {**PROVIDER, "price": PRICE},
    }
    # Serve keeps a request until a replica is there again; whoever waits so long here is told.
    spec["serving"]["router"] |= {"access": "Keys", "timeouts": {"answer": "20s"}}


@pytest.fixture(scope="module")
def ready(place: Place, manifest: Callable[..., Object]) -> Iterator[Object]:
    """The LeanModel, once it is fully out; the provider's key is there before."""
    meta = {"name": "their-key", "namespace": place.namespace}
    place.kubectl.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"apiKey": "k-1"}}
    )
    place.apply(manifest(NAME, guard))
    place.wait(lambda: is_true(place.get(NAME), "Ready"), f"{NAME} is Ready", SECONDS)
    found = place.get(NAME)
    assert found is not None
    yield found
    place.kubectl.run("delete", "lm", NAME, "-n", place.namespace, "--timeout=60s", timeout=90)


@pytest.fixture(scope="module")
def address(place: Place, ready: Object) -> Iterator[str]:
    """The router's address from outside of the cluster."""
    port = urlsplit(ready["status"]["url"]).port
    words = ("port-forward", "-n", place.namespace, f"service/lm-{NAME}", f":{port}")
    with subprocess.Popen(place.kubectl.command(*words), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://{process.stdout.readline().split()[2]}/v1/chat/completions"
        process.terminate()


@pytest.fixture(scope="module")
def key(place: Place) -> str:
    """A key as the README makes one: printed once, its entry applied with kubectl."""
    words = ("keys", "create", "team-a", NAME, "--cluster", "-n", place.namespace, "--usd-per-day", "10")
    command = Path(sys.executable).with_name("leanmodel")
    made = subprocess.run([command, *words], capture_output=True, text=True, check=True)
    place.kubectl.run("apply", "--server-side", "--field-manager=leanmodel-key-test", "-f", "-", given=made.stdout)  # fmt: skip
    return made.stderr.splitlines()[0].split()[-1]


def ask(address: str, key: str = "") -> Reply:
    """Ask once."""
    said = {"system": "Answer in a few words.", "user": "What is 16 plus 8?"}
    messages = [{"role": role, "content": text} for role, text in said.items()]
    body: dict[str, Any] = {"model": NAME, "messages": messages, "max_tokens": 4, "temperature": 0}
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, json.load(answer))
    except urllib.error.HTTPError as error:
        return Reply(error.code, {k.lower(): v for k, v in error.headers.items()}, json.load(error))


def test_who_has_a_key_is_answered_and_told_what_is_left(place: Place, address: str, key: str) -> None:
    refused = ask(address)
    assert refused.status == 401 and refused.body["error"]["code"] == "invalid_api_key"
    # The kubelet brings the Secret within its minute.
    place.wait(lambda: ask(address, key).status == 200, "the key is known", 180)
    answer = ask(address, key)
    assert 9.9 < float(answer.headers["x-leanmodel-budget-left-usd"]) < 10
    assert answer.headers["x-leanmodel-budget-window"].startswith("day;")
    assert ask(address, key[:-1] + ("a" if key[-1] != "a" else "b")).status == 401
    # The line of this very request is there at once, with its tenant and without its key.
    (head,) = pods(place, NAME, "head")
    line = f"grep -h {answer.headers['x-leanmodel-request-id']} /tmp/ray/session_latest/logs/serve/replica_router_*.log"
    told = place.kubectl.run("exec", "-n", place.namespace, head, "-c", "ray-head", "--", "sh", "-c", line)
    assert "team-a" in told and key not in told


def test_both_models_and_the_provider_lost_is_said_and_mends_itself(
    place: Place, address: str, key: str, watching: Watching
) -> None:
    assert ask(address, key).status == 200
    for part in ("lean", "large"):
        for pod in pods(place, NAME, part):
            place.kubectl.run("delete", "pod", pod, "-n", place.namespace, "--force", "--grace-period=0")
    seen: list[Reply] = []

    def answered_again() -> bool:
        seen.append(ask(address, key))
        return seen[-1].status == 200 and any(reply.status >= 500 for reply in seen)

    place.wait(answered_again, "it answers again by itself", SECONDS)
    failed = [reply for reply in seen if reply.status != 200]
    print(f"\n{len(failed)} of {len(seen)} failed: {sorted({r.body['error']['code'] for r in failed})}")
    assert {reply.status for reply in failed} <= {502, 503, 504}
    for reply in failed:
        assert reply.body["error"]["message"]
        assert reply.status != 503 or int(reply.headers["retry-after"]) > 0
    errors = 'ray_leanmodel_requests_total{status=~"5.."}'
    place.wait(lambda: watching.over_the_run(errors), "Prometheus has seen it, as the alert rule asks", 60)
    place.wait(lambda: is_true(place.get(NAME), "Ready"), "and is Ready", SECONDS)
