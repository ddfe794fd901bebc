"""Bringing the node up and taking it away again, from the host's side."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from . import addons, binaries, host, images, layout, machine, own, state
from .api import Api
from .certificates import Pair
from .inside import HIDDEN
from .layout import NODE, Layout
from .state import State, child_of, start_of, until
from .words import ClusterError, say

START_SECONDS = 120.0
READY_SECONDS = 180.0
END_SECONDS = 20.0
TOOLS = Path(__file__).resolve().parents[1]


def up() -> Layout:
    """Returns a node that is ready: the one that runs already, or a new one; undoes a start that fails."""
    machine.need_root()
    folder = layout.node_folder()
    if running := layout.read(folder):
        if state.read(folder).alive() and api(running).answers("/readyz"):
            say(f"the node is up ({running.kubeconfig})")
            return running
        say("a node that ended is cleared away")
        clear(running)
    machine.need_disk(folder)
    machine.need_packages(machine.NODE_PACKAGES)
    binaries.build(binaries.BINARIES)
    started = time.monotonic()
    found = layout.choose(folder, host.routes())
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        launch(found)
        bring_in(found)
    except BaseException:
        if logs := keep_logs(found):
            say(f"the logs of the node are kept in {logs}")
        clear(found)
        raise
    say(f"the node is up ({time.monotonic() - started:.0f} s): export KUBECONFIG={found.kubeconfig}")
    return found


def launch(found: Layout) -> None:
    """Writes the node's files, starts it in namespaces of its own, and gives it its network."""
    folder = found.folder
    made = [path for path in HIDDEN if not Path(path).exists()]
    kept = State(settings=host.settings(), made=made)
    kept.write(folder)
    found.write()
    for path in made:
        Path(path).mkdir(parents=True)
    for name in ("cni", "logs", "volume-plugins", "opt"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "containerd.toml").write_text(layout.containerd_config(found))
    (folder / "cni" / "10-pods.conflist").write_text(layout.cni_config(found))
    (folder / "kubelet.json").write_text(layout.kubelet_config(found))
    (folder / "resolv.conf").write_text(Path("/etc/resolv.conf").read_text())
    images.base_archives(found)
    host.make_cgroups(found)
    with (folder / "logs" / "node.log").open("ab") as log:
        process = subprocess.Popen(
            [
                *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *(sys.executable, "-m", "cluster.inside", str(folder)),
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(TOOLS)},
            start_new_session=True,
        )
    outer = process.pid
    inner = until(lambda: child_of(outer), "the node's first process is there", 10)
    kept.processes = {str(pid): start_of(pid) for pid in (outer, inner)}
    kept.write(folder)
    host.connect(found, inner)
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.close()
    until(lambda: process.poll() is not None or has_started(folder), "the node's servers run", START_SECONDS)
    if not has_started(folder):
        tail = (folder / "logs" / "node.log").read_text(errors="replace")[-2000:]
        raise ClusterError(f"the node ended with {process.returncode}:\n{tail}", "the reason stands above")


def has_started(folder: Path) -> bool:
    """Says whether the node's servers run; raises ClusterError when the node said that one failed."""
    if (folder / "failed").exists():
        raise ClusterError((folder / "failed").read_text(), f"all logs are in {folder / 'logs'}")
    return (folder / "started").exists()


def bring_in(found: Layout) -> None:
    """Waits for the node to be ready, and starts what runs on it as pods."""
    server = api(found)
    addons.apply(server)
    # A server that ends takes the node along: then there is nothing to wait for.
    until(lambda: has_started(found.folder) and is_ready(server), "the node is ready", READY_SECONDS)
    until(
        lambda: has_started(found.folder) and not addons.lacking(server),
        "CoreDNS and KubeRay have ready pods",
        READY_SECONDS,
    )


def is_ready(server: Api) -> bool:
    """Says whether Kubernetes calls the node ready."""
    node = server.get(f"/api/v1/nodes/{NODE}") or {}
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def api(found: Layout) -> Api:
    """Returns a client with an administrator's rights, from the host."""
    certificates = found.folder / "certificates"
    admin = Pair(certificates / "admin.crt", certificates / "admin.key")
    return Api(f"https://{found.node_address}:6443", certificates / "ca.crt", admin)


def down() -> None:
    """Ends the node and undoes everything on the host; does nothing, and says so, where there is none."""
    machine.need_root()
    folder = layout.node_folder()
    shutil.rmtree(kept_logs(folder), ignore_errors=True)
    found = layout.read(folder)
    if found is None:
        say(f"there is no node in {folder}")
        return
    clear(found)
    say("the node is gone")


def load(archives: Iterable[Path]) -> None:
    """Brings images into the node that runs; raises ClusterError when there is none."""
    found = layout.read(layout.node_folder())
    if found is None:
        raise ClusterError(f"there is no node in {layout.node_folder()}", "start one: make cluster-up")
    for archive in archives:
        images.import_archive(found, archive)


def load_own(names: Iterable[str]) -> None:
    """Brings images of ours from the cache into the node, if one runs."""
    found = layout.read(layout.node_folder())
    if found is not None:
        own.send(names, images.ctr(found), found.folder)


def clear(found: Layout) -> None:
    """Ends what runs of a node and undoes what was done for it, however far its start had come."""
    folder = found.folder
    kept = state.read(folder)
    end(kept)
    for pid in host.cgroup_processes(found):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not host.cgroup_processes(found), "no process is left in the node's cgroups", END_SECONDS)
    host.disconnect(found)
    host.remove_cgroups(found)
    host.restore(kept.settings)
    for path in kept.made:
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    shutil.rmtree(folder)


def end(kept: State) -> None:
    """Ends the node's processes: the inner one is asked, then all are killed; the kernel takes the rest along."""
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, END_SECONDS)):
        for pid in kept.alive() if number == signal.SIGKILL else kept.alive()[-1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(ClusterError):
            until(lambda: not kept.alive(), "the node's processes have ended", seconds)
            return
    raise ClusterError(f"processes {kept.alive()} of the node do not end", "see what holds them: ps -fp")


def keep_logs(found: Layout) -> Path | None:
    """Copies the logs of a node that failed beside its folder, the newest only; returns where they are."""
    kept = kept_logs(found.folder)
    shutil.rmtree(kept, ignore_errors=True)
    if not (found.folder / "logs").is_dir():
        return None
    shutil.copytree(found.folder / "logs", kept)
    return kept


def kept_logs(folder: Path) -> Path:
    """Returns where the logs of a node that failed are kept, until the next `down`."""
    return folder.with_name(f"{folder.name}-logs")
