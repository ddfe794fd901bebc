"""Building our images with docker, where its engine runs: it caches by itself and reads its own settings."""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import machine
from .words import ClusterError, run

REMEDY = "the reason stands above; `docker build` by hand takes the same arguments"


def answers() -> bool:
    """Says whether there is a docker whose engine answers."""
    if not machine.has("docker"):
        return False
    return subprocess.run(["docker", "info"], check=False, capture_output=True, timeout=60).returncode == 0


def command(root: Path, name: str, reference: str, base_image: str) -> list[str]:
    """Returns the command that builds one image.

    Args:
        root: of the checkout.
        name: of the target in images/Dockerfile.
        reference: what the image will be called.
        base_image: the Dockerfile's own choice where it is empty.
    """
    base = ["--build-arg", f"BASE={base_image}"] if base_image else []
    where = ["--file", str(root / "images" / "Dockerfile"), str(root)]
    return ["docker", "build", "--target", name, "--tag", reference, *base, *where]


def build(root: Path, name: str, reference: str, base_image: str) -> None:
    """Builds one image; the layers that docker has already cost nothing."""
    run(command(root, name, reference, base_image), remedy=REMEDY)


def send(reference: str, ctr: list[str]) -> None:
    """Brings an image into containerd.

    Args:
        ctr: the command that speaks with it.
    """
    with subprocess.Popen(["docker", "save", reference], stdout=subprocess.PIPE) as saving:
        done = subprocess.run(
            [*ctr, "images", "import", "-"], stdin=saving.stdout, check=False, capture_output=True
        )
    if saving.returncode != 0 or done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()
        raise ClusterError(
            f"containerd did not take {reference}: {words[-1000:]}", "is there room on the disk?"
        )
