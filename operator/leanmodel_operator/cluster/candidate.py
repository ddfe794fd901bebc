"""What this generation has come to: its Jobs' inputs, the results recorded for them, and what failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from leanmodel_api.plan import CompressPlan, CompressResult, ProvePlan
from leanmodel_api.report import ProveReport
from leanmodel_api.resource import LeanModel
from leanmodel_api.serving import ModelServing

from ..jobs import large_plan, lean_plan, prove_plan, revision
from . import names, volumes
from .children.job import JobSpec, shape
from .observed import Observed, Recorded
from .rayservice import ServeSeen
from .settings import Settings
from .trouble import Trouble, application_failure, job_failure, start_too_slow

ALL_CORES = 1 << 20
"""A Job's threads follow its declared cores alone: the operator does not know the node."""


@dataclass(frozen=True)
class Candidate:
    """This generation's models.

    Attributes:
        works: the Jobs that led or lead to them, by stage; each whose inputs are known.
        proof: key of the proof that the report is of; "" while there is none.
        used: names of the recorded results that it rests on.
        failure: what ended its way, when something did.
        fresh: (stage, key, words) of an application's failure that is not recorded yet.
    """

    large: CompressResult | None = None
    lean: CompressResult | None = None
    report: ProveReport | None = None
    works: dict[str, JobSpec] = field(default_factory=dict)
    proof: str = ""
    used: frozenset[str] = frozenset()
    failure: Trouble | None = None
    fresh: tuple[str, str, str] | None = None


def engine_facts(model: LeanModel, image: str) -> str:
    """Return what a certificate is bound to: engine, image, precision and hardware of both models."""

    def one(serving: ModelServing) -> str:
        resources = serving.resources
        gpu = f", {resources.gpu} GPU" if resources.gpu else ""
        return f"{serving.engine} {serving.dtype}/{resources.cpu} CPU{gpu}"

    return f"{image} (large {one(model.spec.serving.large)}; lean {one(model.spec.serving.lean)})"


def serve_key(model: LeanModel, revision_name: str, serving: ModelServing) -> str:
    """Return under which key a failed start is remembered: another try needs other settings or the user's word."""
    retry = model.metadata.annotations.get(names.ANNOTATION_RETRY, "")
    return names.digest([revision_name, serving.model_dump(mode="json"), retry])


def candidate(model: LeanModel, seen: Observed, settings: Settings, image: str) -> Candidate:
    """Return how far this generation is.

    Args:
        image: of the Ray cluster, which part of the proof is about.
    """
    state = _State(model, seen, settings)
    base_dir = volumes.INPUTS_PATH
    plan = large_plan(model, ALL_CORES, base_dir)
    check = lean_plan(model, None, ALL_CORES, base_dir)
    files = (("check.json", check.to_json(indent=1)),) if check is not None and check.source is None else ()
    text = state.stage("compress-large", plan, files)
    large = CompressResult.model_validate_json(text) if text else None
    lean = report = None
    if large is not None:
        made = lean_plan(model, large, ALL_CORES, base_dir)
        text = state.stage("compress-lean", made, ()) if made is not None else None
        lean = CompressResult.model_validate_json(text) if text else None
        if lean is not None:
            proof = prove_plan(model, large, lean, engine_facts(model, image), base_dir)
            text = state.stage("prove", proof, ())
            report = ProveReport.model_validate_json(text) if text else None
    state.serving(large, model.spec.serving.large)
    state.serving(lean, model.spec.serving.lean)
    return Candidate(
        large=large, lean=lean, report=report, works=state.works, used=frozenset(state.used), failure=state.failure,
        fresh=state.fresh, proof=state.proof,
    )  # fmt: skip


class _State:
    """Gathers the stages one after the other."""

    def __init__(self, model: LeanModel, seen: Observed, settings: Settings) -> None:
        self.model, self.seen, self.settings = model, seen, settings
        self.works: dict[str, JobSpec] = {}
        self.used: set[str] = set()
        self.proof = ""
        self.failure: Trouble | None = None
        self.fresh: tuple[str, str, str] | None = None

    def stage(
        self, stage: str, plan: CompressPlan | ProvePlan, files: tuple[tuple[str, str], ...]
    ) -> str | None:
        """Return the recorded result of a stage; note its work, and its failure when there is one."""
        plan_key = plan.key()
        if self.seen.facts.inputs is None:
            record = self._by_plan(stage, plan_key)
        else:
            store = volumes.store(self.model, self.settings)
            key = names.digest([plan_key, self.seen.facts.inputs, store.name, store.folder])
            work = JobSpec(
                stage, key, plan_key, (("plan.json", plan.to_json(indent=1)), *files), self._endpoint()
            )
            self.works[stage] = work
            record = self._by_key(stage, key)
            self._note_failure(work, record)
        if record is None or not record.text:
            return None
        self.used.add(record.name)
        if stage == "prove":
            self.proof = record.key
        return record.text

    def serving(self, result: CompressResult | None, serving: ModelServing) -> None:
        """Note that a revision which has no traffic yet cannot be started; it is then taken out again."""
        if result is None or self.failure is not None:
            return
        name, router = revision(result).name, self.seen.router
        step, key = f"serve-{result.role.lower()}", serve_key(self.model, name, serving)
        with_traffic = router is None or name in (
            router.large.revision,
            router.lean.revision if router.lean else "",
        )
        words = application_failure(self.seen.serve, name)
        if not with_traffic and not words and name in self.seen.facts.late:
            facts, limit = self.seen.facts, self.settings.start_deadline_seconds
            words = start_too_slow(self.seen.serve, name, limit, facts.silent.get(name, ""))
        if with_traffic and not words:
            return
        record = self._by_key(step, key)
        if record is not None and not with_traffic:
            self.used.add(record.name)
            words = record.failure
        elif words and not with_traffic:
            self.fresh = (step, key, words)
        if words and (not with_traffic or result.role == "Large"):
            self.failure = Trouble(step, "StartFailed", words, final=True)

    def _note_failure(self, work: JobSpec, record: Recorded | None) -> None:
        if record is not None or self.failure is not None:
            return
        for job in self.seen.jobs:
            mine = (job.stage, job.key, job.state) == (work.stage, work.key, "Failed")
            if mine and job.shape == shape(self.model, work, self.settings):
                log = self.seen.facts.logs.get(job.pod.uid) if job.pod else None
                self.failure = job_failure(job, log)

    def _by_key(self, stage: str, key: str) -> Recorded | None:
        return next((r for r in self.seen.results if (r.stage, r.key) == (stage, key)), None)

    def _by_plan(self, stage: str, plan: str) -> Recorded | None:
        found = [r for r in self.seen.results if (r.stage, r.plan) == (stage, plan) and r.text]
        return max(found, key=lambda r: (r.created, r.name), default=None)

    def _endpoint(self) -> str:
        name, meta = names.rayservice(self.model.metadata.name), self.model.metadata
        port = service_port(self.model, self.seen.serve)
        return f"http://{name}.{meta.namespace}.svc:{port}"


def pinned_image(config: dict[str, Any] | None, settings: Settings) -> str:
    """Return the image of the Ray cluster: the one that it was made with, or the operator's newest."""
    if not config:
        return settings.server_image
    try:
        return str(config["headGroupSpec"]["template"]["spec"]["containers"][0]["image"])
    except (KeyError, IndexError, TypeError):
        return settings.server_image


def service_port(model: LeanModel, serve: ServeSeen | None) -> int:
    """Return the port of the Service: the one that it was made with, or the manifest's.

    KubeRay 1.6 writes a Service again only when it turns to another cluster (rayservice_controller.go).
    """
    return serve.port if serve is not None and serve.port else model.spec.serving.router.port
