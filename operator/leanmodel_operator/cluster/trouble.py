"""Why work does not get on, in words that say what to do. Pure: from what pods, Jobs and applications show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .observed import JobSeen, LogSeen, PodSeen, job_message
from .rayservice import ServeSeen

IMAGE_REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
)
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
VOLUME_PENDING = "VolumePending"
"""For a moment this is so with every new claim."""
_FIELDS = {
    "compress-large": "spec.jobs.compress",
    "compress-lean": "spec.jobs.compress",
    "prove": "spec.jobs.prove",
}


@dataclass(frozen=True)
class Trouble:
    """Something that keeps work from getting on.

    Attributes:
        step: compress-large, compress-lean, prove, serve-large, serve-lean or serve.
        reason: CamelCase, for machines.
        message: what happened and what to do.
        final: whether it stays so until somebody changes something.
    """

    step: str
    reason: str
    message: str
    final: bool = False


def job_failure(job: JobSeen, log: LogSeen | None = None) -> Trouble:
    """Return why a Job failed: its own last words where it left any."""
    said = job_message(job)
    step = str(said.get("step") or (log.progress.step if log and log.progress else "") or "")
    at = f" at step {step}" if step else ""
    pod, field = job.pod, _FIELDS.get(job.stage, "spec.jobs")
    if pod is not None and pod.ended is not None and (pod.ended[0] == "OOMKilled" or pod.ended[1] == 137):
        limit = f" (limit {pod.limit})" if pod.limit else ""
        return Trouble(
            job.stage, "OutOfMemory",
            f"{job.stage} ran out of memory{at}{limit}: raise {field}.memory, or lower batchSize or maxLength", True,
        )  # fmt: skip
    if job.reason == "DeadlineExceeded":
        return Trouble(
            job.stage, "DeadlineExceeded",
            f"{job.stage} took longer than it may{at}: {job.message}. What is finished is kept; annotate the LeanModel "
            "with leanmodel.io/retry to go on from there, or raise the operator's jobDeadlineSeconds", True,
        )  # fmt: skip
    error = str(said.get("error", "")).strip()
    if error:
        code = int(said.get("exit", 1))
        reason = {2: "BadInput", 3: "Refused"}.get(code, "JobFailed")
        return Trouble(job.stage, reason, f"{job.stage}{at}: {error}", True)
    words = job.message or "its pods left no message"
    return Trouble(
        job.stage, "JobFailed",
        f"{job.stage} failed{at}: {words}; annotate the LeanModel with leanmodel.io/retry to try again", True,
    )  # fmt: skip


def job_trouble(job: JobSeen) -> Trouble | None:
    """Return what keeps a running Job from getting on; None when nothing does."""
    if job.state == "Suspended":
        return Trouble(
            job.stage,
            "Suspended",
            f"{job.stage} waits until its Job {job.name} is no longer suspended (Kueue admits it)",
        )
    if job.pod is None:
        return None
    return pod_trouble(job.pod, job.stage, f"{_FIELDS.get(job.stage, 'spec.jobs')}")


def pod_trouble(pod: PodSeen, step: str, field: str) -> Trouble | None:
    """Return what keeps a pod from running; None when nothing does.

    Args:
        step: what the pod works for.
        field: of the manifest, where its resources stand.
    """
    if pod.waiting is not None and pod.waiting[0] in IMAGE_REASONS:
        return Trouble(
            step, "ImagePull",
            f"{step}: the image of pod {pod.name} cannot be pulled ({pod.waiting[0]}: {pod.waiting[1]}): correct the "
            "operator's image settings or its pull secrets",
        )  # fmt: skip
    if pod.waiting is not None and pod.waiting[0] in CONFIG_REASONS:
        return Trouble(
            step,
            "ContainerConfig",
            f"{step}: pod {pod.name} cannot start ({pod.waiting[0]}: {pod.waiting[1]})",
        )
    if pod.phase == "Pending" and "PersistentVolumeClaim" in pod.unschedulable:
        return Trouble(
            step, VOLUME_PENDING,
            f"{step}: pod {pod.name} waits for its volumes ({pod.unschedulable}); if it stays so, see the claims of this "
            "namespace: the cluster needs a default storage class, or the operator's settings storeClass or store",
        )  # fmt: skip
    if pod.phase == "Pending" and pod.unschedulable:
        return Trouble(
            step, "Unschedulable",
            f"{step}: no node takes pod {pod.name} ({pod.unschedulable}): lower {field}, or add nodes",
        )  # fmt: skip
    if pod.waiting is not None and pod.waiting[0] == "CrashLoopBackOff" and pod.ended is not None:
        why = "ran out of memory" if pod.ended[0] == "OOMKilled" else f"ended with exit code {pod.ended[1]}"
        limit = f" (limit {pod.limit})" if pod.limit else ""
        return Trouble(
            step, "Crashing", f"{step}: pod {pod.name} {why}{limit} again and again: raise {field}"
        )
    return None


def serve_troubles(serve: ServeSeen | None, pods: Iterable[PodSeen]) -> list[Trouble]:
    """Return what keeps the Ray cluster from serving."""
    found: list[Trouble] = []
    if serve is not None and serve.problem:
        found.append(Trouble("serve", "RayService", f"KubeRay refuses the RayService: {serve.problem}"))
    for pod in pods:
        role = pod.group.partition("-")[0]
        field = f"spec.serving.{role if role in ('large', 'lean') else 'router'}.resources"
        step = f"serve-{role}" if role in ("large", "lean") else "serve"
        trouble = pod_trouble(pod, step, field)
        if trouble is None and pod.ended is not None and pod.ended[0] == "OOMKilled":
            limit = f" (limit {pod.limit})" if pod.limit else ""
            trouble = Trouble(
                step, "OutOfMemory", f"{step}: pod {pod.name} ran out of memory{limit}: raise {field}.memory"
            )
        if trouble is not None:
            found.append(trouble)
    return found


def application_failure(serve: ServeSeen | None, revision: str) -> str:
    """Return why an application has failed for good, in Serve's words; empty when it has not."""
    seen = serve.active.get(revision) if serve is not None else None
    if seen is None or seen.status != "DEPLOY_FAILED":
        return ""
    return (
        f"{revision} did not start: {seen.message or 'Serve gave no reason; see the log of its worker pod'}"
    )


def replica_lost(serve: ServeSeen | None, revision: str) -> str:
    """Return that Serve replaces a replica which no longer does its work; empty when all of them do.

    Serve keeps the reason in the log of its controller. The one that a manifest puts right is memory: Ray ends a
    replica whose pod comes near its limit, before the kernel would, and the pod itself goes on.
    """
    seen = serve.active.get(revision) if serve is not None else None
    if seen is None or seen.status != "UNHEALTHY":
        return ""
    return (
        f"Serve replaces a replica of {revision} that failed its health check ({seen.message or 'it gave no reason'}): "
        "if its pod was near its memory limit, Ray has ended it; raise "
        f"spec.serving.{revision.partition('-')[0]}.resources.memory"
    )


def start_too_slow(serve: ServeSeen | None, revision: str, seconds: float, silent: str = "") -> str:
    """Return that a revision has not answered in time, with what Serve says of it.

    Args:
        serve: what Serve shows.
        revision: which.
        seconds: the deadline.
        silent: its last refusal, where it was asked.
    """
    seen = serve.active.get(revision) if serve is not None else None
    state = (
        f"Serve says {seen.status}{f': {seen.message}' if seen.message else ''}"
        if seen
        else "Serve does not list it"
    )
    state += f"; asked for a token, {silent}" if silent else ""
    return (
        f"{revision} has not answered within {seconds:.0f} s of its start ({state}): see the log of its worker pod; then "
        "annotate the LeanModel with leanmodel.io/retry, or raise the operator's startDeadlineSeconds"
    )
