"""The Jobs: compress and prove. Created once under their inputs' hash, never applied again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leanmodel_api.jobs import CompressResources, JobResources
from leanmodel_api.resource import LeanModel

from .. import names, teacher, volumes
from ..settings import Settings
from .owner import Owner
from .pods import (
    CONTAINER_SECURITY,
    SCRATCH_PATH,
    bounds,
    environment,
    pod_security,
    provider_key_file,
    provider_volume,
    pull_secrets,
    scratch,
    tokens_volume,
)

PLAN_PATH = "/plan"
RESULT = f"{SCRATCH_PATH}/result.json"
_SHELL = ("python", "-m", "leanmodel_operator.jobshell", "--result", RESULT, "--")


@dataclass(frozen=True)
class JobSpec:
    """What one Job is to do.

    Attributes:
        stage: compress-large, compress-lean or prove.
        key: hash of its plan and its inputs' contents.
        plan: hash of its plan alone.
        files: of its ConfigMap, by name.
        endpoint: address of the router, for a proof.
    """

    stage: str
    key: str
    plan: str
    files: tuple[tuple[str, str], ...]
    endpoint: str = ""


def job_name(owner: str, stage: str, key: str) -> str:
    """Return the name of a Job and of its plan's ConfigMap."""
    return names.child(owner, stage, key)


def shape(model: LeanModel, work: JobSpec, settings: Settings) -> str:
    """Return the hash of what a failed Job may be tried again with: resources, image, and the user's word."""
    resources = _resources(model, work.stage)
    retry = model.metadata.annotations.get(names.ANNOTATION_RETRY, "")
    # What is as it is by default is left out: a field that comes with a release makes no Job anew.
    given = resources.model_dump(mode="json", include={"cpu", "memory"})
    given |= resources.model_dump(mode="json", exclude={"cpu", "memory"}, exclude_defaults=True)
    return names.digest([given, _image(work.stage, settings), retry], 10)


def job(owner: Owner, model: LeanModel, work: JobSpec, settings: Settings) -> dict[str, Any]:
    """Return the Job.

    Bad input (exit code 2) and refused work (3) are not tried again, evictions do not count, and pods are kept for
    what they say until the Job is deleted.
    """
    name = job_name(owner.name, work.stage, work.key)
    labels = names.labels(owner.name, work.stage, stage=work.stage, key=work.key, plan=work.plan)
    annotations = {names.ANNOTATION_SHAPE: shape(model, work, settings)}
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": names.meta(name, owner.namespace, {**labels, **owner.queue_label()}, owner.reference(), annotations),
        "spec": {
            "backoffLimit": settings.job_retries,
            "activeDeadlineSeconds": settings.job_deadline_seconds,
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 3]}},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {"metadata": {"labels": labels}, "spec": _pod(owner, model, work, settings, name)},
        },
    }  # fmt: skip


def _pod(owner: Owner, model: LeanModel, work: JobSpec, settings: Settings, name: str) -> dict[str, Any]:
    store = volumes.store(model, settings)
    plan_volume = {"name": "plan", "configMap": {"name": name}}
    vols, mounts = scratch()
    input_volumes, input_mounts = volumes.input_volumes(volumes.inputs(model), store)
    vols += [plan_volume, volumes.store_volume(store), *input_volumes]
    mounts += [
        {"name": "plan", "mountPath": PLAN_PATH, "readOnly": True},
        volumes.store_mount(store, read_only=False),
    ]
    mounts += input_mounts
    if work.stage == "prove":
        volume, mount = tokens_volume(names.child(owner.name, "tokens"))
        vols.append(volume)
        mounts.append(mount)
    key = teacher.key_secret(model) if teacher.teaches(model, work.stage) else None
    if key is not None:
        volume, mount = provider_volume(key)
        vols.append(volume)
        mounts.append(mount)
    resources = _resources(model, work.stage)
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": names.child(owner.name, "job"),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(settings),
        "volumes": vols,
        "containers": [
            {
                "name": "job", "image": _image(work.stage, settings), "imagePullPolicy": settings.image_pull_policy,
                "command": [*_SHELL, *_command(work), *(("--teacher-key-file", provider_key_file(key)) if key else ())],
                "env": environment({"HOME": SCRATCH_PATH, "PYTHONUNBUFFERED": "1"}),
                "resources": bounds(resources.cpu, resources.memory, _gpus(resources)),
                "securityContext": CONTAINER_SECURITY,
                "volumeMounts": mounts,
            }
        ],
        **pull_secrets(settings.job_pull_secrets),
    }  # fmt: skip
    if settings.job_priority_class:
        pod["priorityClassName"] = settings.job_priority_class
    return pod


def _command(work: JobSpec) -> Sequence[str]:
    if work.stage == "prove":
        return (
            "python", "-m", "leanmodel_evaluation", "--plan", f"{PLAN_PATH}/plan.json", "--store", volumes.STORE_PATH,
            "--endpoint", work.endpoint, "--token-file", "/tokens/internal", "--result", RESULT,
            "--html", f"{volumes.STORE_PATH}/{volumes.REPORTS}/{work.key}.html",
        )  # fmt: skip
    also = [
        part
        for name, _ in work.files
        if name.startswith("check")
        for part in ("--also-check", f"{PLAN_PATH}/{name}")
    ]
    return (
        "python", "-m", "leanmodel_compression", "--plan", f"{PLAN_PATH}/plan.json", "--store", volumes.STORE_PATH,
        "--result", RESULT, *also,
    )  # fmt: skip


def _image(stage: str, settings: Settings) -> str:
    return settings.prover_image if stage == "prove" else settings.compressor_image


def _resources(model: LeanModel, stage: str) -> JobResources:
    return model.spec.jobs.prove if stage == "prove" else model.spec.jobs.compress


def _gpus(resources: JobResources) -> int:
    return resources.gpu if isinstance(resources, CompressResources) else 0
