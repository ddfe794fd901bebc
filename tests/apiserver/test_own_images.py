"""Our images: what their key depends on, how layers are shared and left out, and what the Dockerfile promises."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from cluster import base, docker, oci, own, storage
from cluster.words import ClusterError
from kube_client import ROOT

from leanmodel_operator.cluster.children.pods import SCRATCH_PATH
from leanmodel_operator.cluster.settings import Settings

DOCKERFILE = (ROOT / "images" / "Dockerfile").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that images are made of, to change."""
    for name in ("images", "requirements", *own.ROOMS):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "stale"),
    [
        ("images/Dockerfile", {"operator", "compressor", "server"}),
        ("images/install.sh", {"operator", "compressor", "server"}),
        ("operator/leanmodel_operator/jobshell.py", {"operator", "compressor", "server"}),
        ("requirements/image-operator.lock", {"operator"}),
        ("requirements/image-server.lock", {"server"}),
        ("requirements/image-torch.lock", {"compressor", "server"}),
        ("requirements/test.in", set()),
    ],
)
def test_an_image_is_built_again_when_what_it_is_made_of_changes(checkout, changed, stale):
    before = {name: own.key(name, "base", checkout) for name in own.NAMES}
    with (checkout / changed).open("a") as file:
        file.write("\n# a change\n")
    after = {name: own.key(name, "base", checkout) for name in own.NAMES}
    assert {name for name in own.NAMES if before[name] != after[name]} == stale
    assert own.key("operator", "another base", checkout) != after["operator"]


def test_what_a_test_run_leaves_behind_changes_no_key(checkout):
    before = own.key("operator", "base", checkout)
    cache = checkout / "operator" / "leanmodel_operator" / "__pycache__"
    cache.mkdir()
    (cache / "jobshell.pyc").touch()
    assert own.key("operator", "base", checkout) == before


# ------------------------------------------------------------------------------------------ the cache


def put(store: oci.Store, name: str, layers: list[bytes]) -> None:
    """Puts an image into a layout, as buildah does."""

    def blob(content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        path = store.folder / "blobs" / "sha256" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    manifest = {"config": blob(name.encode()), "layers": [blob(layer) for layer in layers]}
    entry = {**blob(json.dumps(manifest).encode()), "annotations": {oci.NAME: name}}
    index = store.folder / "index.json"
    known = json.loads(index.read_text())["manifests"] if index.exists() else []
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*known, entry]}))


@pytest.fixture
def store(tmp_path: Path) -> oci.Store:
    found = oci.Store(tmp_path / "store")
    put(found, "leanmodel/server:1", [b"torch", b"server"])
    put(found, "leanmodel/compressor:1", [b"torch", b"compressor"])
    return found


def test_what_no_image_has_any_more_goes_and_shared_layers_stay(store):
    kept = set(store.digests("leanmodel/server:1"))
    (store.folder / "oci-put-blob17").touch()
    store.keep({"leanmodel/server:1"})
    assert store.names() == ["leanmodel/server:1"]
    assert {f"sha256:{path.name}" for path in (store.folder / "blobs/sha256").iterdir()} == kept
    assert store.has("leanmodel/server:1") and not store.has("leanmodel/compressor:1")
    assert not list(store.folder.glob("oci-put-blob*"))


def test_an_image_with_a_part_missing_is_not_there(store):
    last = store.digests("leanmodel/server:1")[-1]
    (store.folder / "blobs/sha256" / last.partition(":")[2]).unlink()
    assert not store.has("leanmodel/server:1")
    with pytest.raises(ClusterError, match=r"no image leanmodel/other:1 .*\n.*make cluster-images"):
        store.digests("leanmodel/other:1")


def test_what_the_reader_has_is_left_out_of_an_archive(store):
    torch, own_layer = store.digests("leanmodel/server:1")[2:]
    out = io.BytesIO()
    store.write("leanmodel/server:1", out, {torch})
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        names = archive.getnames()
        index = json.load(archive.extractfile("index.json"))
    assert f"blobs/sha256/{torch.partition(':')[2]}" not in names
    assert f"blobs/sha256/{own_layer.partition(':')[2]}" in names
    (entry,) = index["manifests"]
    assert entry["annotations"][oci.CONTAINERD_NAME] == "docker.io/leanmodel/server:1"


# ------------------------------------------------------------------------------------- base and recipe


def test_the_mirror_is_the_one_of_this_machine_for_the_right_debian():
    lines = "http://a/|trixie|Debian\nhttp://b/|bookworm|Else\nhttp://c/|bookworm|Debian\n"
    assert base.mirror(lines) == "http://c/"
    with pytest.raises(ClusterError, match="no packages of Debian bookworm.*\n.*BASE="):
        base.mirror("http://a/|trixie|Debian\n")


def test_nothing_of_this_machine_stays_in_the_base(tmp_path):
    for path in (
        "etc/apt",
        "var/log/apt",
        "var/cache/apt",
        "var/lib/apt/lists",
        *(f"usr/share/{n}" for n in ("doc", "man", "locale")),
    ):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "left").touch()
    (tmp_path / "etc/apt/sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    base.strip(tmp_path)
    files = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert files == {"etc/apt/left": "", "etc/apt/sources.list": ""}


def test_there_is_a_target_for_each_image_on_a_public_base():
    targets = re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(own.NAMES) <= set(targets)
    assert re.search(r"^ARG BASE=python:3\.11-slim-", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) - set(targets) == {"${BASE}"}


def test_images_run_as_the_user_that_pods_get():
    user = Settings().run_as
    assert f"leanmodel:x:{user}:{user}::{SCRATCH_PATH}:" in DOCKERFILE
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    for name in own.NAMES:
        (stage,) = (text for text in stages if text.splitlines()[0].endswith(f" AS {name}"))
        assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE)[-1] == f"{user}:{user}"


def test_the_recipe_names_files_that_exist_and_no_host():
    for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / part).exists() for part in line.split()[:-1]), line
    hosts = re.findall(r"https?://\S+|\b[\w.-]+\.(?:org|com|io|net)/", DOCKERFILE)
    assert hosts == []


def test_docker_takes_the_same_recipe():
    command = docker.command(Path("/here"), "server", "leanmodel/server:1", "")
    assert command[:6] == ["docker", "build", "--target", "server", "--tag", "leanmodel/server:1"]
    assert not any("BASE" in word for word in command)
    assert "BASE=mine" in docker.command(Path("/here"), "server", "x", "mine")


# ------------------------------------------------------------------------------------------- storage


def claim(**spec: object) -> dict[str, object]:
    return {
        "metadata": {"name": "inputs", "namespace": "ml", "uid": "u1"},
        "spec": {
            "storageClassName": storage.CLASS,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        },
    }


def test_only_claims_of_our_class_without_a_volume_get_one():
    other, bound, leaving = claim(storageClassName="else"), claim(volumeName="v"), claim()
    leaving["metadata"] = {**leaving["metadata"], "deletionTimestamp": "now"}
    assert storage.wanting([other, bound, leaving, claim()]) == [claim()]


def test_the_real_server_takes_class_and_volume(api, tmp_path):
    api.apply(storage.storage_class())
    made = storage.volume(claim(), tmp_path)
    api.apply(made)
    found = api.get("v1", "PersistentVolume", made["metadata"]["name"])
    assert found["spec"]["claimRef"]["uid"] == "u1"
    assert found["spec"]["local"]["path"].startswith(str(tmp_path))
    released = {**found, "status": {"phase": "Released"}}
    assert storage.released([found, released]) == [made["metadata"]["name"]]


def test_the_ignore_file_lets_in_what_is_copied_and_nothing_else():
    lines = (ROOT / "images" / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    assert let_in == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "requirements/*.lock",
        "images/install.sh",
        *own.ROOMS,
    }
    tracked = subprocess.run(
        ["git", "ls-files", "images"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {"images/Dockerfile", "images/Dockerfile.dockerignore"} <= set(tracked.stdout.split())
