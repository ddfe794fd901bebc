"""Where a LeanModel's files are: its store and its inputs, as volumes of pods. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from leanmodel_api.base import NAME_PATTERN
from leanmodel_api.resource import LeanModel
from leanmodel_api.sources import Source, file_path

from . import names
from .settings import Settings

STORE_PATH = "/store"
INPUTS_PATH = "/inputs"
REPORTS = "reports"
"""Folder of the store with the pages of proofs, KEY.html each."""


@dataclass(frozen=True)
class Claim:
    """A PersistentVolumeClaim and a folder in it."""

    name: str
    folder: str = ""
    own: bool = False
    """Whether the operator makes it, for this LeanModel alone."""


@dataclass(frozen=True)
class Inputs:
    """Where ``file:`` sources are looked for; ``files`` are their paths."""

    config_map: str | None
    claim: Claim | None
    files: tuple[str, ...]


def claim(uri: str) -> Claim:
    """Return the claim that ``pvc://CLAIM[/FOLDER]`` names.

    Raises:
        ValueError: it is none; the message says what was found.
    """
    scheme, _, rest = uri.partition("://")
    name, _, folder = rest.partition("/")
    if scheme != "pvc" or not re.fullmatch(NAME_PATTERN, name) or ".." in folder.split("/"):
        raise ValueError(f"found {uri!r}, and in a cluster the store is a PersistentVolumeClaim")
    return Claim(name, folder.strip("/"))


def store(model: LeanModel, settings: Settings) -> Claim:
    """Return the claim of a LeanModel's store: the manifest's, the operator's, or one of its own."""
    uri = model.spec.store.uri if model.spec.store is not None else settings.store
    return claim(uri) if uri else Claim(names.child(model.metadata.name, "store"), own=True)


def sources(model: LeanModel) -> list[Source]:
    """Return all sources of a manifest."""
    spec = model.spec
    found = [
        spec.large.source,
        spec.lean.source if spec.lean else None,
        *(data.source for data in spec.data_sets),
    ]
    return [source for source in found if source is not None]


def inputs(model: LeanModel) -> Inputs | None:
    """Return where the manifest's ``file:`` sources are; None when it has none.

    The annotation leanmodel.io/inputs says it; without one it is the ConfigMap ``NAME-inputs``.

    Raises:
        ValueError: the annotation is not understood.
    """
    uris = [source.uri for source in sources(model) if source.scheme == "file"]
    files = tuple(sorted({file_path(uri) for uri in uris}))
    if not files:
        return None
    where = model.metadata.annotations.get(names.ANNOTATION_INPUTS, f"configmap/{model.metadata.name}-inputs")
    kind, _, rest = where.partition("/")
    name, _, folder = rest.partition("/")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) or ".." in folder.split("/"):
        raise ValueError(f"found {where!r}")
    if kind == "configmap" and not folder:
        return Inputs(name, None, files)
    if kind == "pvc":
        return Inputs(None, Claim(name, folder.strip("/")), files)
    raise ValueError(f"found {where!r}")


def store_volume(where: Claim) -> dict[str, Any]:
    """Return the volume of the store."""
    return {"name": "store", "persistentVolumeClaim": {"claimName": where.name}}


def store_mount(where: Claim, *, read_only: bool) -> dict[str, Any]:
    """Return the mount of the store."""
    return _mount("store", STORE_PATH, where.folder, read_only)


def input_volumes(where: Inputs | None, store: Claim) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return volumes and mounts of the inputs.

    A key of a ConfigMap cannot hold a slash: ``file:data/rows.tsv`` is the key ``rows.tsv``, mounted as
    ``data/rows.tsv``, so that one manifest works here and on a laptop.
    """
    if where is None:
        return [], []
    if where.config_map is not None:
        items = [{"key": path.rsplit("/", 1)[-1], "path": path} for path in where.files]
        volume = {"name": "inputs", "configMap": {"name": where.config_map, "items": items}}
        return [volume], [_mount("inputs", INPUTS_PATH, "", True)]
    assert where.claim is not None
    if where.claim.name == store.name:  # one claim, one volume: the same disk attaches once
        return [], [_mount("store", INPUTS_PATH, where.claim.folder, True)]
    volume = {"name": "inputs", "persistentVolumeClaim": {"claimName": where.claim.name, "readOnly": True}}
    return [volume], [_mount("inputs", INPUTS_PATH, where.claim.folder, True)]


def _mount(name: str, path: str, folder: str, read_only: bool) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if read_only:
        mount["readOnly"] = True
    if folder:
        mount["subPath"] = folder
    return mount


def artifact_path(artifact: str) -> str:
    """Return the folder of an artifact in a mounted store, as leanmodel_store lays it out."""
    return f"{STORE_PATH}/objects/{artifact.removeprefix('sha256:')}/files"
