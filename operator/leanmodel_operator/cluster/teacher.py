"""The external teacher in a cluster: which Jobs ask it, with whose key, and which have to stop. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanmodel_api.plan import CompressPlan
from leanmodel_api.resource import LeanModel
from leanmodel_api.teacher_rules import learners

from .observed import JobSeen, Observed

MISSING = ("spec.teacher", "so no step can learn from the teacher")
"""The teacher's place in the manifest, and what comes of a key that is not there."""


def teaches(model: LeanModel, stage: str) -> bool:
    """Return whether the Job of a stage asks the external teacher."""
    place = {"compress-large": "spec.large.", "compress-lean": "spec.lean."}.get(stage)
    return place is not None and any(found.startswith(place) for found in learners(model.spec))


def key_secret(model: LeanModel | None) -> str | None:
    """Return the Secret that Jobs need to ask the external teacher; None where they need none."""
    if model is None or model.spec.teacher is None or not learners(model.spec):
        return None
    return model.spec.teacher.external.api_key_secret


def forbidden_jobs(body: Mapping[str, Any], seen: Observed) -> tuple[JobSeen, ...]:
    """Return the Jobs at work that ask a teacher which a refused manifest no longer names or allows.

    Args:
        body: the LeanModel as the API server has it, checked by nobody.
    """
    spec = body.get("spec")
    allowed = _field(_field(spec, "routing"), "externalProviders") == "Allowed"
    url = _field(_field(_field(spec, "teacher"), "external"), "baseUrl")
    return tuple(
        item
        for item in seen.jobs
        if item.state in ("Running", "Suspended")
        and (told := _asked(seen.objects.get(("ConfigMap", item.name)))) is not None
        and not (allowed and told == url)
    )


def _asked(config: Mapping[str, Any] | None) -> str | None:
    """Return the address of the teacher that a Job's plan names; None where it names none, or is no plan."""
    text = _field(_field(config, "data"), "plan.json")
    try:
        access = CompressPlan.model_validate_json(text).external_teacher if isinstance(text, str) else None
    except ValueError:
        return None
    return access.teacher.external.base_url if access is not None else None


def _field(part: object, name: str) -> object:
    return part.get(name) if isinstance(part, Mapping) else None
