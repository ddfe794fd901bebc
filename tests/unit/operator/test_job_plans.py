"""What the Jobs are told of the proof's data set, so that nothing learns what it holds back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from leanmodel_api.manifest import load
from leanmodel_api.plan import CompressResult
from leanmodel_api.search import SearchBudget
from leanmodel_operator.cluster.children.job import JobSpec, job, shape
from leanmodel_operator.cluster.children.owner import Owner
from leanmodel_operator.cluster.settings import Settings
from leanmodel_operator.jobs import large_plan, lean_plan


def model(**changes: Any) -> Any:
    sets = [
        {"name": name, "source": {"uri": f"file:{name}.tsv"}, "format": "TSV", "prompt": {"text": "{msg}"}, "answer": "{label}"}
        for name in ("mine", "proof")
    ]  # fmt: skip
    spec = {
        "dataSets": sets,
        "large": {"source": {"uri": "file:model"}, "finetune": {"dataSet": "mine"}},
        "lean": {"steps": [{"type": "Distill", "dataSet": "mine"}]},
        "evaluation": {"dataSet": "proof"},
        **changes,
    }
    return load({"apiVersion": "leanmodel.io/v1alpha1", "kind": "LeanModel", "metadata": {"name": "demo"}, "spec": spec})  # fmt: skip


def test_both_jobs_know_the_data_set_of_the_proof() -> None:
    found = model()
    lean = lean_plan(found, None, 2, ".")
    assert large_plan(found, 2, ".").proof_data_set == "proof" and lean is not None
    assert lean.proof_data_set == "proof"


def test_one_data_set_changes_no_plan_and_without_a_lean_model_nothing_is_proven() -> None:
    one = model(
        dataSets=model().spec.model_dump(by_alias=True, exclude_none=True)["dataSets"][:1], evaluation={}
    )
    assert large_plan(one, 2, ".").proof_data_set is None
    assert "proofDataSet" not in large_plan(one, 2, ".").to_json()
    assert large_plan(model(lean=None, evaluation={}), 2, ".").proof_data_set is None


def test_a_search_stands_in_the_lean_plan_in_place_of_steps() -> None:
    search = {"budget": {"sizeRatio": "0.6"}, "promise": {"dataSet": "mine"}, "training": {"dataSet": "mine"}}
    found = model(lean={"search": search})
    early, later = (lean_plan(found, large, 2, ".") for large in (None, made()))
    assert early is not None and later is not None
    assert early.search is not None and early.search.budget.size_ratio == "0.6" and early.steps == []
    assert (early.base, early.source) == (None, None)
    assert later.base == later.teacher == made().artifact
    stepped = lean_plan(model(), made(), 2, ".")
    assert stepped is not None and stepped.search is None and "search" not in stepped.to_json()


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        ({"sizeRatio": "0.6"}, None),
        ({"latency": "20ms"}, {"threads": 2}),
        ({"usdPerThousandRequests": "0.01"}, {"threads": 2, "usdPerHour": "0.4"}),
        ({"device": {"memory": "4Gi"}}, {"kvCacheBytes": 2**28, "dtype": "Auto"}),
    ],
)
def test_a_search_is_told_of_the_replica_what_its_budget_asks_and_no_more(budget: Any, told: Any) -> None:
    # As it is once the manifest's rules took it: threads are those that the engine will be started with.
    serving = {"lean": {"resources": {"cpu": "2500m"}, "kvCache": "256Mi"}}
    pricing = {"large": {"usdPerHour": "0.8"}, "lean": {"usdPerHour": "0.4"}}
    asks = {
        "search": {
            "budget": {"sizeRatio": "0.6"},
            "training": {"dataSet": "mine"},
            "promise": {"dataSet": "mine"},
        }
    }
    found = model(lean=asks, serving=serving, pricing=pricing)
    search = found.spec.lean.search.model_copy(update={"budget": SearchBudget.model_validate(budget)})
    lean = found.spec.lean.model_copy(update={"search": search})
    found = found.model_copy(update={"spec": found.spec.model_copy(update={"lean": lean})})
    plan, small = (lean_plan(found, made(), cores, ".") for cores in (8, 1))
    assert plan is not None and small is not None
    assert small.replica is None or small.replica.threads in (None, 1)
    assert (plan.replica and json.loads(plan.replica.to_json())) == told
    assert ("replica" in json.loads(plan.to_json())) == (told is not None)


def test_a_model_that_is_brought_along_is_taught_by_the_large_one_where_steps_work_on_it() -> None:
    source, steps = {"uri": "file:small"}, [{"type": "Distill", "dataSet": "mine"}]
    served = lean_plan(model(lean={"source": source}), made(), 2, ".")
    early, taught = (lean_plan(model(lean={"source": source, "steps": steps}), large, 2, ".") for large in (None, made()))  # fmt: skip
    assert served is not None and early is not None and taught is not None
    assert (served.base, served.teacher) == (early.base, early.teacher) == (None, None)
    assert (taught.base, taught.teacher) == (None, made().artifact)
    assert taught.source is not None and [step.type for step in taught.steps] == ["Distill"]
    # Another large model teaches other answers; what is served as it comes is the same beside any.
    assert taught.key() != early.key()


def made() -> CompressResult:
    return CompressResult(name="demo", role="Large", plan="0" * 16, artifact="sha256:" + "1" * 64, bytes=10)


def test_the_device_is_told_and_makes_no_other_plan() -> None:
    plain, gpu = model(), model(jobs={"compress": {"gpu": 1, "device": "GPU"}})
    plans = [(large_plan(one, 2, "."), lean_plan(one, None, 2, ".")) for one in (plain, gpu)]
    for before, after in zip(*plans, strict=True):
        assert before is not None and after is not None
        assert (before.limits.device, after.limits.device) == ("Auto", "GPU")
        assert before.key() == after.key()


@pytest.mark.parametrize(("gpu", "stage"), [(0, "compress-large"), (2, "compress-large"), (2, "compress-lean"), (2, "prove")])  # fmt: skip
def test_gpus_are_the_compress_pods_alone(gpu: int, stage: str) -> None:
    owner = Owner("demo", "ml", "u")
    made = job(owner, model(jobs={"compress": {"gpu": gpu}}), JobSpec(stage, "k", "p", ()), Settings())
    resources = made["spec"]["template"]["spec"]["containers"][0]["resources"]
    wanted = str(gpu) if gpu and stage != "prove" else None
    assert resources["limits"].get("nvidia.com/gpu") == resources["requests"].get("nvidia.com/gpu") == wanted
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_a_failed_job_is_tried_again_on_another_device() -> None:
    work, settings = JobSpec("compress-large", "k", "p", ()), Settings()
    shapes = [
        shape(model(jobs={"compress": fields}), work, settings)
        for fields in ({}, {"device": "Auto"}, {"gpu": 1}, {"gpu": 1, "device": "GPU"})
    ]
    assert shapes[0] == shapes[1] and len(set(shapes)) == 3
