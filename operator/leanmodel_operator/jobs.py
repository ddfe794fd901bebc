"""From a LeanModel to the plans of its Jobs. Pure: equal specs make equal plans."""

from __future__ import annotations

from leanmodel_api.base import quantity
from leanmodel_api.classification import task_of
from leanmodel_api.plan import CompressPlan, CompressResult, JobLimits, ProvePlan, ReplicaPlan, RevisionRef
from leanmodel_api.resource import LeanModel
from leanmodel_api.rules import evaluation_data
from leanmodel_api.teacher_rules import access_of


def limits(model: LeanModel, cores: int) -> JobLimits:
    """Return what a compress Job may use; a thread per core that is declared and there."""
    compress = model.spec.jobs.compress
    return JobLimits(
        memory_bytes=int(quantity(compress.memory)),
        threads=max(1, min(cores, int(quantity(compress.cpu)))),
        device=compress.device,
    )


def large_plan(model: LeanModel, cores: int, base_dir: str) -> CompressPlan:
    """Return the plan that fetches (and adapts) the large model."""
    spec = model.spec
    return CompressPlan(
        name=model.metadata.name, role="Large", task=task_of(spec), source=spec.large.source, finetune=spec.large.finetune,
        data_sets=spec.data_sets, proof_data_set=_proof(model), max_model_length=spec.serving.large.max_model_length, seed=spec.seed,
        limits=limits(model, cores), base_dir=base_dir, external_teacher=access_of(spec, [spec.large.finetune]),
    )  # fmt: skip


def lean_plan(
    model: LeanModel, large: CompressResult | None, cores: int, base_dir: str
) -> CompressPlan | None:
    """Return the plan that makes the lean model from the large one, or from its own source; None without a lean model.

    Before there is a large model the plan has no base: such a plan can be checked, not run.
    """
    lean = model.spec.lean
    if lean is None:
        return None
    base = large.artifact if large is not None and lean.source is None else None
    # A source that is worked on is taught by the large model; one that is served as it comes needs nobody.
    teacher = large.artifact if large is not None and (lean.source is None or lean.steps) else None
    return CompressPlan(
        name=model.metadata.name, role="Lean", task=task_of(model.spec), source=lean.source, steps=lean.steps or [],
        search=lean.search, replica=replica_plan(model, cores),
        base=base, teacher=teacher,
        data_sets=model.spec.data_sets, proof_data_set=_proof(model), max_model_length=model.spec.serving.lean.max_model_length,
        seed=model.spec.seed, limits=limits(model, cores), base_dir=base_dir,
        external_teacher=access_of(model.spec, lean.steps or []),
    )  # fmt: skip


def replica_plan(model: LeanModel, cores: int) -> ReplicaPlan | None:
    """Return how the lean model will be served, as far as its search's budget asks; None where it asks nothing.

    What it does not ask stands in no plan: another price must not make a search by bytes begin anew.

    Args:
        model: the resource.
        cores: of the machine that serves, where it is known.
    """
    search = model.spec.lean.search if model.spec.lean is not None else None
    if search is None:
        return None
    lean, budget = model.spec.serving.lean, search.budget
    dollars, device = budget.usd_per_thousand_requests is not None, budget.device is not None
    timed = dollars or budget.latency is not None
    if not timed and not device:
        return None
    return ReplicaPlan(
        # As engines are started: a thread for each whole core that is declared and there.
        threads=max(1, min(cores, int(quantity(lean.resources.cpu)))) if timed else None,
        usd_per_hour=model.spec.pricing.lean.usd_per_hour if dollars and model.spec.pricing else None,
        kv_cache_bytes=int(quantity(lean.kv_cache)) if device else None,
        dtype=lean.dtype if device else None,
    )


def _proof(model: LeanModel) -> str | None:
    """Return the name of the proof's data set, where there are others that steps could learn from."""
    data = evaluation_data(model.spec) if model.spec.lean is not None else None
    return data.name if data is not None and len(model.spec.data_sets) > 1 else None


def revision(result: CompressResult) -> RevisionRef:
    """Return the served revision that an artifact makes: its name carries the digest's first 8 digits."""
    short = result.artifact.removeprefix("sha256:")[:8]
    return RevisionRef(name=f"{result.role.lower()}-{short}", artifact=result.artifact, bytes=result.bytes)


def prove_plan(
    model: LeanModel, large: CompressResult, lean: CompressResult, engine: str, base_dir: str
) -> ProvePlan:
    """Return the plan that proves a lean revision against the large one.

    Args:
        engine: engine, version and precision, as the serving side names them: the certificate holds for it.

    Raises:
        ValueError: there is no data set to prove on (the manifest's rules refuse that before).
    """
    spec = model.spec
    data = evaluation_data(spec)
    if data is None:
        raise ValueError("spec.evaluation.dataSet: there is no data set to prove on")
    return ProvePlan(
        name=model.metadata.name, task=task_of(spec), large=revision(large), lean=revision(lean), data_set=data,
        evaluation=spec.evaluation, routing=spec.routing.proven(), engine=engine, seed=spec.seed, base_dir=base_dir,
        large_price=spec.pricing.large if spec.pricing else None,
        lean_price=spec.pricing.lean if spec.pricing else None, steps=[*large.steps, *lean.steps],
        search=lean.search,
    )  # fmt: skip
