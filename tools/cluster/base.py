"""The base of our images where no registry is asked: Debian's own packages, made into an image with debootstrap.

Users' builds have a public base instead (the default of BASE in images/Dockerfile). Nothing of this machine stays in
it: the mirror that the packages came from is taken out of its list of sources.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from .words import ClusterError, run, say

SUITE = "bookworm"
"""The Debian whose Python is 3.11, the one that the lock files are for."""

PACKAGES = ("python3", "python3-venv", "ca-certificates", "libnuma1", "wget")

BUILD_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "skopeo": "skopeo"}
"""Program to the Debian package that has it."""

REMEDY = "see the words above; BASE=IMAGE names a base image of yours instead"


def tag() -> str:
    """Returns the name of the base image; it changes with what goes into it."""
    return "localhost/leanmodel-base:" + hashlib.sha256(repr((SUITE, PACKAGES)).encode()).hexdigest()[:12]


def mirror(targets: str) -> str:
    """Returns where this machine gets its Debian packages from.

    Args:
        targets: lines of ``site|codename|origin``, as `apt-get indextargets` prints them.

    Raises:
        ClusterError: it gets none of the suite that is needed.
    """
    for line in targets.splitlines():
        site, codename, origin = (line.split("|") + ["", ""])[:3]
        if codename == SUITE and origin == "Debian":
            return site
    raise ClusterError(
        f"apt-get on this machine has no packages of Debian {SUITE}, whose Python is 3.11",
        "name a base image with Python 3.11: make cluster-images BASE=IMAGE",
    )


def make() -> str:
    """Makes the base image unless it is there; returns its name."""
    name = tag()
    if run(["buildah", "images", "--quiet", "--filter", f"reference={name}"], remedy=REMEDY).strip():
        return name
    words = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)|$(CODENAME)|$(ORIGIN)",
        "Created-By: Packages",
    ]
    site = mirror(run(words, remedy="run apt-get update"))
    say(f"making a base image of Debian {SUITE}")
    with tempfile.TemporaryDirectory(prefix="leanmodel-base-") as folder:
        root = Path(folder) / "root"
        run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root, site],
            remedy=REMEDY,
        )
        strip(root)
        packed = Path(folder) / "root.tar"  # a tar keeps owners, which a copied folder would lose
        run(["tar", "-C", root, "--exclude=./dev/*", "-cf", packed, "."], remedy=REMEDY)
        container = run(["buildah", "from", "scratch"], remedy=REMEDY).strip()
        try:
            run(["buildah", "add", "--quiet", container, packed, "/"], remedy=REMEDY)
            run(["buildah", "config", "--cmd", "python3", container], remedy=REMEDY)
            run(["buildah", "commit", "--quiet", container, name], remedy=REMEDY)
        finally:
            run(["buildah", "rm", container], remedy=REMEDY)
    return name


def strip(root: Path) -> None:
    """Takes out of a new Debian what is this machine's, and what only installing needed."""
    (root / "etc/apt/sources.list").write_text("")
    for path in (
        "etc/resolv.conf",
        "etc/hostname",
        "var/log/bootstrap.log",
        "var/log/apt",
        "var/log/dpkg.log",
    ):
        _remove(root / path)
    for folder in (
        "var/cache/apt",
        "var/lib/apt/lists",
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
    ):
        for left in (root / folder).iterdir():
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
