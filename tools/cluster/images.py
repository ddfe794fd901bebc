"""Images of one static program, made without a builder, and bringing images into the node."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path

from . import binaries
from .layout import PAUSE_IMAGE, Layout
from .words import run, say

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

PROGRAMS = {
    "pause": PAUSE_IMAGE,
    "coredns": "leanmodel.test/coredns:1",
    "kuberay-operator": "leanmodel.test/kuberay-operator:1",
}
"""Program to the image that holds it and nothing else."""


def write_archive(path: Path, tag: str, program: Path) -> None:
    """Writes an image of one static program as `docker save` would; the same program gives the same bytes."""
    layer = _tar([(program.name, program.read_bytes(), 0o755), ("tmp/", b"", 0o1777)])
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    parts = [
        ("config.json", json.dumps(config).encode(), 0o644),
        ("layer.tar", layer, 0o644),
        ("manifest.json", json.dumps(manifest).encode(), 0o644),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_tar(parts))


def _tar(entries: Sequence[tuple[str, bytes, int]]) -> bytes:
    """Returns a tar of (name, content, mode); a name that ends with a slash is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content, mode in entries:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode, info.size = mode, len(content)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def base_archives(layout: Layout) -> None:
    """Puts the images that every node has where it imports them from when it starts."""
    for program, tag in PROGRAMS.items():
        write_archive(layout.folder / "archives" / f"{program}.tar", tag, binaries.find(program))


def ctr(layout: Layout) -> list[str]:
    """Returns the command that speaks with the node's containerd."""
    return ["ctr", "--address", str(layout.containerd_socket), "--namespace", "k8s.io"]


def import_archive(layout: Layout, archive: Path) -> None:
    """Brings an archive's images into the node's containerd; pods name them with imagePullPolicy Never."""
    words = [*ctr(layout), "images", "import", str(archive)]
    run(words, remedy="the archive should be what `docker save` or `buildah push` makes")
    say(f"image {archive.stem} is in the node")
