"""A folder of images as the OCI's image layout has it, whose layers are kept once, and what of it a node lacks."""

from __future__ import annotations

import fcntl
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from . import machine
from .words import ClusterError, run

NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


@dataclass(frozen=True)
class Store:
    """Images in one layout."""

    folder: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes of this user from changing what is here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def names(self) -> list[str]:
        """Returns the names of all images."""
        return [entry["annotations"][NAME] for entry in self._entries()]

    def has(self, name: str) -> bool:
        """Says whether an image is here, with all its parts."""
        try:
            return all(self._blob(digest).is_file() for digest in self.digests(name))
        except (ClusterError, OSError):
            return False

    def take(self, image: str, name: str) -> None:
        """Copies an image of buildah's here, layers that are here already left out.

        As they are: compressing torch would take minutes, for every image anew and again in the node. Of the tools
        only skopeo can be told so; `buildah push` (1.28) compresses for a layout whatever it is told.
        """
        words = ["skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers"]
        run(
            [*words, f"containers-storage:{image}", f"oci:{self.folder}:{name}"],
            remedy="free some disk: `make cluster-prune` removes old images",
        )

    def digests(self, name: str) -> list[str]:
        """Returns the digests of an image's parts: its manifest, its configuration, its layers in order.

        Raises:
            ClusterError: it is not here.
        """
        entry = self._entry(name)
        manifest = json.loads(self._blob(entry["digest"]).read_text())
        parts = [manifest["config"], *manifest["layers"]]
        return [str(entry["digest"]), *(str(part["digest"]) for part in parts)]

    def size(self, name: str, known: set[str]) -> int:
        """Returns the bytes of an image's parts that are not among the known ones."""
        return sum(self._blob(digest).stat().st_size for digest in self.digests(name) if digest not in known)

    def keep(self, names: set[str]) -> None:
        """Forgets all images but these, and removes what only they had."""
        for path in self.folder.glob("oci-put-blob*"):  # of a copy that was killed
            path.unlink()
        path = self.folder / "index.json"
        if not path.exists():
            return
        index = json.loads(path.read_text())
        index["manifests"] = [entry for entry in index["manifests"] if entry["annotations"][NAME] in names]
        new = path.with_suffix(".new")
        new.write_text(json.dumps(index))
        new.rename(path)
        used = {digest.partition(":")[2] for name in self.names() for digest in self.digests(name)}
        for blob in (self.folder / "blobs" / "sha256").iterdir():
            if blob.name not in used:
                blob.unlink()

    def write(self, name: str, out: IO[bytes], known: set[str]) -> None:
        """Writes an image as an archive without the layers that the reader has.

        Args:
            name: of the image; the reader knows it as `docker.io/NAME`.
            out: where to.
            known: digests of the parts that the reader has.
        """
        entry = dict(self._entry(name))
        entry["annotations"] = {CONTAINERD_NAME: f"docker.io/{name}", NAME: name.rpartition(":")[2]}
        index = {"schemaVersion": 2, "manifests": [entry]}
        with tarfile.open(fileobj=out, mode="w|") as archive:
            _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
            _add(archive, "index.json", json.dumps(index).encode())
            for digest in self.digests(name):
                if digest not in known:
                    archive.add(self._blob(digest), f"blobs/sha256/{digest.partition(':')[2]}")

    def _entries(self) -> Iterator[dict[str, Any]]:
        try:
            index = json.loads((self.folder / "index.json").read_text())
        except OSError:
            return
        yield from (entry for entry in index["manifests"] if NAME in entry.get("annotations", {}))

    def _entry(self, name: str) -> dict[str, Any]:
        for entry in self._entries():
            if entry["annotations"][NAME] == name:
                return entry
        raise ClusterError(f"there is no image {name} in {self.folder}", "build it: make cluster-images")

    def _blob(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / digest.partition(":")[2]


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def send(store: Store, name: str, ctr: list[str], folder: Path) -> None:
    """Brings an image into containerd, as far as it is not there yet.

    Args:
        ctr: the command that speaks with it, such as `ctr --address SOCKET --namespace k8s.io`.
        folder: where it keeps what it gets.
    """
    if f"docker.io/{name}" in run([*ctr, "images", "list", "--quiet"], remedy="is the node up?").split():
        return
    known = set(run([*ctr, "content", "list", "--quiet"], remedy="is the node up?").split())
    # Once as it comes and once unpacked.
    machine.need_disk(folder, 2 * store.size(name, known), name)
    with subprocess.Popen(
        [*ctr, "images", "import", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stderr is not None
        try:
            store.write(name, process.stdin, known)
            process.stdin.close()
        except BrokenPipeError:  # it has ended; why stands in what it said
            pass
        words = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise ClusterError(f"containerd did not take {name}: {words[-1000:]}", "is there room on the disk?")
