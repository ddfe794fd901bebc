"""Generated manifests through a real API server: what it lets through, the operator answers, and lives on."""

from __future__ import annotations

import copy
import json
import sys

from hypothesis import HealthCheck, Phase, given, settings
from kube_client import ROOT, RefusedError, until
from life import GROUP, manifest
from operator_process import errors

sys.path.insert(0, str(ROOT / "tests" / "unit" / "operator"))
from wild_manifests import VALUES, manifests  # noqa: E402

SAMPLE = 150


def drawn(strategy, count):
    """A fixed sample of a strategy."""
    found = []

    @settings(
        max_examples=count, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def take(value):
        found.append(value)

    take()
    return found


def through(api, namespace, number, body):
    """Creates a manifest; says whether the API server took it."""
    body = copy.deepcopy(body)
    body["metadata"] = {"name": f"wild-{number}", "annotations": body["metadata"].get("annotations", {})}
    try:
        json.dumps(body, allow_nan=False)
        api.ask("POST", api.path(GROUP, "LeanModel", namespace), body)
    except RefusedError as error:
        assert error.code in (400, 422), error
        return False
    except ValueError:  # not a number: no JSON has it
        return False
    return True


def test_what_the_server_takes_the_operator_answers(api, life, operator):
    one = operator().start()
    bodies = drawn(manifests(), SAMPLE)
    # Untyped by intent: the API server lets anything pass here.
    for value in drawn(VALUES, SAMPLE // 3):
        body = manifest()
        body["spec"]["serving"] = {
            "overrides": {"podTemplate": value} if isinstance(value, dict) else {"other": value}
        }
        bodies.append(body)
    taken = [n for n, body in enumerate(bodies) if through(api, life.namespace, n, body)]
    assert len(taken) >= 20, "some of them are well enough formed"

    def answered():
        items = api.list(GROUP, "LeanModel", life.namespace)
        return all(item.get("status", {}).get("conditions") for item in items)

    until(answered, "each has its conditions", 120)
    assert not one.ended() and one.starts == 1
    # What Kubernetes refuses of an override is said in the status and tried again; what we trip over is not.
    assert [words for words in errors(one.lines()) if "ApiError" not in words] == []
    life.create()
    life.ready()
