"""Our own images: operator, compressor and server, built once per state of the sources, and brought into the node.

An image is named after a key: a hash of its Dockerfile, its lock files, the sources, and its base. While that image
lies in the cache nothing is built. The cache is one layout as the OCI's image specification has it, in which images
share layers, so that an edited source costs a few megabytes there and on the way into the node.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from . import base, binaries, docker, machine, oci
from .oci import Store
from .words import ClusterError, run, say

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "images" / "Dockerfile"
NAMES = ("operator", "compressor", "server")
ROOMS = ("api", "store", "routing", "evaluation", "compression", "serving", "operator", "cli")

GIB = 2**30
BUILD_BYTES = {"operator": 1 * GIB, "compressor": 4 * GIB, "server": 5 * GIB}
TORCH_BYTES = 11 * GIB
"""Free bytes asked before an image is built, its layers in the builder and again in the cache; torch, which two
share, counts once."""


def key(name: str, base_image: str, root: Path = ROOT) -> str:
    """Returns what an image's tag is: a hash of all that it is made of."""
    digest = hashlib.sha256(f"{name}\0{base_image}\0".encode())
    locks = ["installer", "build", f"image-{name}", *([] if name == "operator" else ["image-torch"])]
    files = [
        root / "images" / "Dockerfile",
        root / "images" / "install.sh",
        *(root / name for name in ("pyproject.toml", "README.md", "LICENSE")),
    ]
    files += [root / "requirements" / f"{lock}.lock" for lock in locks]
    for room in ROOMS:
        files += sorted(
            path for path in (root / room).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        )
    for path in files:
        digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def reference(name: str, tag: str) -> str:
    """Returns the name that manifests and flags give an image."""
    return f"leanmodel/{name}:{tag}"


def cache() -> Store:
    """Returns the cache of built images."""
    return Store(binaries.cache_folder() / "cluster" / "images")


def build(names: Iterable[str] = NAMES, base_image: str = "") -> dict[str, str]:
    """Builds what is not in the cache yet; returns the reference of each image.

    With docker where its engine answers, and else with buildah, as root.

    Args:
        names: of the images.
        base_image: any image with Python 3.11. Where none is named docker takes the Dockerfile's default, and
            for buildah one is made of Debian's packages.

    Raises:
        ClusterError: root, a program, or disk is missing; or a build failed.
    """
    if docker.answers():
        found = {name: reference(name, key(name, base_image)) for name in names}
        for name, whole in found.items():
            docker.build(ROOT, name, whole, base_image)
        return found
    machine.need_root()
    machine.need_packages(base.BUILD_PACKAGES)
    store = cache()
    base_name = base_image or base.tag()
    found = {name: reference(name, key(name, base_name)) for name in names}
    if all(map(store.has, found.values())):
        return found
    with store.alone():
        missing = [name for name, whole in found.items() if not store.has(whole)]
        wanted = sum(BUILD_BYTES[name] for name in missing) + (
            TORCH_BYTES if {*missing} - {"operator"} else 0
        )
        machine.need_disk(store.folder, wanted, f"building {', '.join(missing)}")
        base_name = base_image or base.make()
        for name in missing:
            say(f"building {found[name]}")
            _build_one(name, found[name], base_name)
            store.take(f"localhost/{found[name]}", found[name])
    return found


def _build_one(name: str, whole: str, base_image: str) -> None:
    """Builds one image with buildah; settings of this machine are seen while it builds and stay out of it."""
    with tempfile.TemporaryDirectory(prefix="leanmodel-build-") as scratch:
        command = [
            *("buildah", "build", "--layers", "--pull=never", "--isolation", "chroot", "--network", "host"),
            *("--build-arg", f"BASE={base_image}", "--target", name, "--tag", f"localhost/{whole}"),
            *(
                "--file",
                str(DOCKERFILE),
                "--ignorefile",
                str(DOCKERFILE.with_name("Dockerfile.dockerignore")),
            ),
            *("--format", "oci", *settings(Path(scratch)), str(ROOT)),
        ]
        run(command, remedy="the reason stands above; what was built before it is kept")


def settings(folder: Path) -> list[str]:
    """Returns what a build gets of this machine: its certificates, its package index, its downloads."""
    uv = binaries.cache_folder() / "uv"
    uv.mkdir(parents=True, exist_ok=True)
    words = ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro", "--volume", f"{uv}:/var/cache/uv"]
    lines = ["system-certs = true"]
    if index := os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL"):
        lines += ["[[index]]", f"url = {json.dumps(index)}", "default = true"]
    (folder / "uv.toml").write_text("\n".join(lines) + "\n")
    words += ["--secret", f"id=uv,src={folder / 'uv.toml'}"]
    pip = Path("/etc/pip.conf")
    if pip.exists():
        words += ["--secret", f"id=pip,src={pip}"]
    return words


def send(names: Iterable[str], ctr: list[str], folder: Path) -> None:
    """Brings built images into containerd.

    Args:
        names: references, as `build` returned them.
        ctr: the command that speaks with it.
        folder: where it keeps what it gets.
    """
    for whole in names:
        if docker.answers():
            docker.send(whole, ctr)
        else:
            oci.send(cache(), whole, ctr, folder)
        say(f"image {whole} is in the node")


def prune() -> list[str]:
    """Removes built images that are not of the present sources; returns their names."""
    store = cache()
    kept = {reference(name, key(name, base.tag())) for name in NAMES}
    with store.alone():
        gone = [name for name in store.names() if name not in kept]
        store.keep(kept)
    if machine.has("buildah"):
        for name in gone:
            try:
                run(["buildah", "rmi", f"localhost/{name}"], remedy="see above")
            except ClusterError:  # already gone, or built elsewhere
                continue
    return gone
