"""From the API server's object to a LeanModel that this operator carries out, or to what is wrong with it. Pure.

The schema and the CEL rules of the CRD come first, in the API server; what is said here is what they cannot say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from leanmodel_api.errors import Issue, ManifestError
from leanmodel_api.manifest import load
from leanmodel_api.resource import LeanModel
from leanmodel_api.sources import Source, file_path

from .volumes import claim, inputs

HERE = "in a cluster"


def accept(body: dict[str, Any]) -> tuple[LeanModel | None, list[Issue]]:
    """Return the LeanModel of an object, or what is wrong with it.

    Args:
        body: the object as the API server gave it.
    """
    document = {key: body.get(key) for key in ("apiVersion", "kind", "metadata", "spec")}
    try:
        model = load(document, "Cluster")
    except ManifestError as error:
        return None, list(error.issues)
    issues = list(_here(model))
    return (None, issues) if issues else (model, [])


def _here(model: LeanModel) -> Iterable[Issue]:
    """Yield what a cluster cannot do, whatever the local runner says of it."""
    spec = model.spec
    if spec.store is not None:
        try:
            claim(spec.store.uri)
        except ValueError as error:
            yield Issue("spec.store.uri", str(error), "write pvc://CLAIM or pvc://CLAIM/FOLDER")
    if spec.serving.router.state is not None:
        try:
            claim(spec.serving.router.state)
        except ValueError:
            yield Issue(
                "spec.serving.router.state",
                f"found {spec.serving.router.state!r}, which is no claim",
                "write pvc://CLAIM or pvc://CLAIM/FOLDER",
            )
    try:
        inputs(model)
    except ValueError as error:
        yield Issue(
            "metadata.annotations[leanmodel.io/inputs]",
            str(error),
            "write configmap/NAME or pvc/CLAIM/FOLDER",
        )
    places: list[tuple[str, Source | None]] = [
        ("spec.large.source", spec.large.source),
        ("spec.lean.source", spec.lean.source if spec.lean else None),
        *((f"spec.dataSets[{i}].source", data.source) for i, data in enumerate(spec.data_sets)),
    ]
    for field, source in places:
        if source is not None and source.scheme == "file":
            path = file_path(source.uri)
            if path.startswith("/") or ".." in path.split("/"):
                yield Issue(
                    f"{field}.uri", f"found {source.uri!r}, which leads out of the folder of inputs",
                    f"write a path below it, such as file:data/rows.tsv: {HERE} it is looked for in the volume that the annotation leanmodel.io/inputs names",
                )  # fmt: skip
    overrides = spec.serving.overrides or {}
    for key in overrides:
        if key != "podTemplate":
            yield Issue(f"spec.serving.overrides.{key}", "is not an override", "write podTemplate")
    template = overrides.get("podTemplate", {})
    if not isinstance(template, dict):
        yield Issue(
            "spec.serving.overrides.podTemplate",
            "is not an object",
            "write metadata and spec of a pod template",
        )
    for name in ("large", "lean"):
        serving = getattr(spec.serving, name)
        if serving.min_replicas > serving.max_replicas:
            yield Issue(
                f"spec.serving.{name}.maxReplicas", f"found {serving.max_replicas}, less than minReplicas {serving.min_replicas}",
                "raise it, or lower minReplicas",
            )  # fmt: skip
    if spec.serving.lean.min_replicas == 0:
        yield Issue(
            "spec.serving.lean.minReplicas",
            "found 0: the lean model answers first, it cannot sleep",
            "write 1 or more",
        )
