"""The programs of Kubernetes: where each comes from, and where it lies once it is built.

Each Go module under `modules/` pins one upstream and is built into a folder of the cache that is named after
a hash of the module's files, so that an unchanged pin is never built twice and a changed one never mixed up.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .words import ClusterError, run, say

MODULES = Path(__file__).resolve().parent / "modules"

ASSETS = "KUBEBUILDER_ASSETS"
"""The variable that envtest reads too: a folder with etcd, kube-apiserver and whatever else is there."""

BUILD_BYTES = 6 * 2**30
"""Free bytes asked before a first build: modules, Go's own build cache, and the programs (1 GB of them)."""


@dataclass(frozen=True)
class Binary:
    """One program: its name, the folder under `modules/` that pins it, and its Go package."""

    name: str
    module: str
    package: str


BINARIES = {
    binary.name: binary
    for binary in (
        Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
        *(
            Binary(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}")
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
            )
        ),
        Binary("coredns", "coredns", "github.com/coredns/coredns"),
        Binary("kuberay-operator", "kuberay", "github.com/ray-project/kuberay/ray-operator"),
        Binary("pause", "pause", "leanmodel/cluster/pause"),
        Binary("helm", "helm", "helm.sh/helm/v3/cmd/helm"),
        Binary(
            "prometheus-operator",
            "prometheus-operator",
            "github.com/prometheus-operator/prometheus-operator/cmd/operator",
        ),
    )
}

DEFINITIONS = {
    "kuberay": ("github.com/ray-project/kuberay/ray-operator", "config/crd/bases"),
    "prometheus-operator": (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd",
    ),
}
"""Modules that bring CustomResourceDefinitions along: the upstream's path, and the folder in it."""

SERVERS = ("etcd", "kube-apiserver", "kube-controller-manager")
"""What tests without a node need."""

CHARTS = ("helm", "prometheus-operator")
"""What tests of the charts need beside the servers."""


def cache_folder(variables: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder outside the checkout that `make setup` uses too; it need not exist yet."""
    if chosen := variables.get("LEANMODEL_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leanmodel"


def key(module: str) -> str:
    """Returns the name of a module's folder in the cache: the module and a hash of its pins."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update(name.encode() + b"\0" + (MODULES / module / name).read_bytes())
    return f"{module}-{digest.hexdigest()[:12]}"


def version(module: str, path: str) -> str:
    """Returns the version of `path` that a module's go.mod requires, such as v1.34.2."""
    text = (MODULES / module / "go.mod").read_text()
    found = re.search(rf"^(?:require\s+|\t){re.escape(path)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise ClusterError(f"modules/{module}/go.mod requires no {path}", "add it: `go get` in that folder")
    return found[1]


def place(name: str, variables: Mapping[str, str] = os.environ) -> Path:
    """Returns where a program lies, or will lie once built: KUBEBUILDER_ASSETS first, then the cache."""
    if (folder := variables.get(ASSETS)) and (Path(folder) / name).is_file():
        return Path(folder).absolute() / name
    return cache_folder(variables) / "cluster" / "bin" / key(BINARIES[name].module) / name


def find(name: str, variables: Mapping[str, str] = os.environ) -> Path:
    """Returns where a program lies; raises ClusterError when it was not built yet."""
    path = place(name, variables)
    if not path.is_file():
        target = "test-charts" if name in CHARTS else "cluster-servers"
        raise ClusterError(
            f"{name} is neither in the cache ({path.parent}) nor in ${ASSETS}",
            f"run `make {target}` (builds it once), or set {ASSETS} to a folder that has it",
        )
    return path


def build(names: Iterable[str]) -> dict[str, Path]:
    """Builds what is not there yet, one at a time over all processes of this user; returns where each lies."""
    wanted = {name: place(name) for name in names}
    missing = [name for name, path in wanted.items() if not path.is_file()]
    if missing:
        home = cache_folder() / "cluster"
        home.mkdir(parents=True, exist_ok=True)
        with (home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name in missing:
                if not wanted[name].is_file():  # another process may have been first
                    compile_one(BINARIES[name], wanted[name])
    return wanted


def compile_one(binary: Binary, target: Path) -> None:
    """Compiles one program beside its place and renames it, so that a killed build leaves no half of it."""
    go = find_go(binary.name)
    check_disk(target)
    started = time.monotonic()
    say(f"building {binary.name} (once; kube-apiserver takes about four minutes on two cores)")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    command = [go, "build", "-mod=readonly", "-trimpath", "-ldflags", ldflags(binary), "-o", str(scratch)]
    try:
        run(
            [*command, binary.package],
            remedy=f"the module is {MODULES / binary.module}; `go mod verify` there tells if it came whole",
            variables=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"},
            folder=MODULES / binary.module,
        )
        if binary.module in DEFINITIONS:
            keep_definitions(go, binary.module, target.parent / "crds")
        scratch.rename(target)
    finally:
        scratch.unlink(missing_ok=True)
    say(f"{binary.name}: built ({time.monotonic() - started:.0f} s, {target.stat().st_size / 2**20:.0f} MiB)")


def definitions(module: str = "kuberay") -> Path:
    """Returns the folder of an upstream's definitions, taken out of its module when they are not there yet."""
    folder = cache_folder() / "cluster" / "bin" / key(module) / "crds"
    if not any(folder.glob("*.yaml")):
        go = find_go(f"the definitions of {module}")
        words = [go, "mod", "download", DEFINITIONS[module][0]]
        run(words, remedy="see above: the module could not be fetched", folder=MODULES / module)
        folder.parent.mkdir(parents=True, exist_ok=True)
        keep_definitions(go, module, folder)
    return folder


def keep_definitions(go: str, module: str, folder: Path) -> None:
    """Copies an upstream's definitions out of Go's cache of modules, which anybody may empty."""
    path, inside = DEFINITIONS[module]
    words = [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", path]
    found = run(words, remedy="see above", folder=MODULES / module).strip()
    folder.mkdir(exist_ok=True)
    for definition in Path(found, inside).glob("*.yaml"):
        (folder / definition.name).write_bytes(definition.read_bytes())


def ldflags(binary: Binary) -> str:
    """Returns the linker's flags: no debug tables, and the versions that a program reports, as its upstream sets them.

    Without them kube-apiserver calls itself v0.0.0, and clients and kubelet refuse the skew; and helm takes every
    cluster that it cannot ask for Kubernetes 1.20, which is too old for our charts.
    """
    if binary.module == "kubernetes":
        told = version("kubernetes", "k8s.io/kubernetes")
        major, minor = told.removeprefix("v").split(".")[:2]
        where = "k8s.io/component-base/version"
        return f"-s -w -X {where}.gitVersion={told} -X {where}.gitMajor={major} -X {where}.gitMinor={minor}"
    if binary.module == "helm":
        minor = version("helm", "k8s.io/client-go").split(".")[1]
        parts = [f"-X helm.sh/helm/v3/internal/version.version={version('helm', 'helm.sh/helm/v3')}"]
        for package in ("pkg/lint/rules", "pkg/chartutil"):
            parts += [f"-X helm.sh/helm/v3/{package}.k8sVersionMajor=1"]
            parts += [f"-X helm.sh/helm/v3/{package}.k8sVersionMinor={minor}"]
        return " ".join(["-s -w", *parts])
    return "-s -w"


def find_go(needed_for: str) -> str:
    """Returns the go command; raises ClusterError when there is none."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise ClusterError(
            f"Go is not on the PATH, and {needed_for} has to be built once",
            f"install Go 1.26 or newer (go.dev/dl), or set {ASSETS} to a folder with the programs",
        )
    return go


def check_disk(target: Path) -> None:
    """Refuses to begin a first build on a disk that cannot hold it; a later one needs little."""
    if any(target.parent.parent.glob("*/*")):
        return
    free = shutil.disk_usage(cache_folder()).free
    if free < BUILD_BYTES:
        raise ClusterError(
            f"{free / 2**30:.1f} GiB are free for {cache_folder()}, a first build wants {BUILD_BYTES / 2**30:.0f} GiB",
            "free some, or set LEANMODEL_CACHE to a folder on a larger disk",
        )


def prune() -> list[Path]:
    """Removes the programs of pins that this checkout no longer has; returns the folders removed."""
    current = {key(binary.module) for binary in BINARIES.values()}
    stale = [p for p in (cache_folder() / "cluster" / "bin").glob("*") if p.name not in current]
    for folder in stale:
        shutil.rmtree(folder)
    return stale
