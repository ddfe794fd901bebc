"""The node's storage: a default class, and volumes that are folders of the node's own.

A cluster that people use makes volumes for claims; this is the least that does so, with the node's one disk. Volumes
are of the kind `local`, since for these the kubelet sets a pod's group as it does on real disks (for `hostPath` it
does not). Run as one of the node's servers: `python -m cluster.storage FOLDER`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import layout
from .api import Api
from .certificates import Pair
from .layout import NODE, Layout
from .words import ClusterError, say

Object = dict[str, Any]

CLASS = "leanmodel-local"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
VOLUMES = "/api/v1/persistentvolumes"
CLAIMS = "/api/v1/persistentvolumeclaims"
SECONDS = 0.5
"""Between two looks: one list of claims and one of volumes, on a node that has a handful."""


def storage_class() -> Object:
    """Returns the class that claims get which name none."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "leanmodel.test/local",
        "volumeBindingMode": "Immediate",
    }


def volume(claim: Object, folder: Path) -> Object:
    """Returns the volume for a claim: a folder of its own below `folder`, bound to this claim alone."""
    meta, spec = claim["metadata"], claim["spec"]
    name = f"local-{meta['uid']}"
    on_this_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": CLASS,
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                **{key: meta[key] for key in ("namespace", "name", "uid")},
            },
            "local": {"path": str(folder / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_this_node]}]}},
        },
    }


def wanting(claims: Iterable[Object]) -> list[Object]:
    """Returns the claims of our class that have no volume yet."""
    return [
        claim
        for claim in claims
        if claim["spec"].get("storageClassName") == CLASS
        and not claim["spec"].get("volumeName")
        and not claim["metadata"].get("deletionTimestamp")
    ]


def released(volumes: Iterable[Object]) -> list[str]:
    """Returns the names of our volumes whose claims are gone."""
    return [
        item["metadata"]["name"]
        for item in volumes
        if item["spec"].get("storageClassName") == CLASS
        and (item.get("status") or {}).get("phase") == "Released"
    ]


def look(api: Api, folder: Path) -> None:
    """Makes the volumes that claims want, and takes away those whose claims are gone."""
    for claim in wanting(api.get(CLAIMS)["items"]):
        made = volume(claim, folder)
        path = Path(made["spec"]["local"]["path"])
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)
        api.apply(f"{VOLUMES}/{made['metadata']['name']}", json.dumps(made).encode())
    for name in released(api.get(VOLUMES)["items"]):
        api.delete(f"{VOLUMES}/{name}")
        shutil.rmtree(folder / name, ignore_errors=True)


def main(found: Layout, api: Api) -> None:
    """Looks after volumes for as long as the node lives; an API server that does not answer is asked again."""
    known = False
    while True:
        try:
            if not known:
                api.apply(f"{CLASSES}/{CLASS}", json.dumps(storage_class()).encode())
                known = True
            look(api, found.folder / "volumes")
        except ClusterError as error:
            say(str(error))
        time.sleep(SECONDS)


if __name__ == "__main__":
    place = layout.read(Path(sys.argv[1]))
    if place is None:
        raise SystemExit(f"no layout in {sys.argv[1]}")
    certificates = place.folder / "certificates"
    admin = Pair(certificates / "admin.crt", certificates / "admin.key")
    main(place, Api(f"https://{place.node_address}:6443", certificates / "ca.crt", admin))
