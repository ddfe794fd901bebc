"""The servers end with whoever asked for them, start again on their data, and say why they failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import binaries
from cluster.servers import Server, free_ports
from cluster.words import ClusterError
from kube_client import ROOT, until

# Under nohup a hang-up is ignored, and that is inherited.
STARTER = """
import signal, sys
from pathlib import Path
from cluster.control_plane import Place, etcd_command
from cluster.servers import Server, free_ports
signal.signal(signal.SIGHUP, signal.SIG_DFL)
folder = Path(sys.argv[1])
client, peer = free_ports(2)
server = Server("etcd", etcd_command(Place(folder, etcd_port=client, etcd_peer_port=peer)), folder / "etcd.log")
server.start()
print(server.process.pid, flush=True)
sys.stdin.read()
"""


def runs(pid: int) -> bool:
    """Says whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_server_ends_with_a_killed_session(tmp_path, number):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tools")},
    )
    assert starter.stdout is not None and starter.stdin is not None
    with starter.stdin, starter.stdout:
        server = int(starter.stdout.readline())
        until(lambda: (tmp_path / "etcd").exists(), "etcd runs and has made its folder")
        assert runs(server)
        starter.send_signal(number)
        starter.wait(30)
        until(lambda: not runs(server), "etcd ended with its parent")


def test_the_api_server_starts_again_on_its_data(control_plane, api, namespace):
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "1"}}
    api.create(thing, namespace)
    control_plane.servers["kube-apiserver"].kill()
    assert not control_plane.is_ready()
    control_plane.start_api_server()
    assert api.get("v1", "ConfigMap", "kept", namespace)["data"] == {"a": "1"}


def test_a_failing_server_says_why(tmp_path):
    server = Server("etcd", [binaries.find("etcd"), "--data-dir", "/dev/null/x"], tmp_path / "etcd.log")
    server.start()
    with pytest.raises(ClusterError, match=r"etcd ended with \d+:\n(.*\n)*.*/dev/null/x"):
        server.wait_until(lambda: False, 20)


def test_free_ports_differ():
    assert len(set(free_ports(20))) == 20


def test_what_is_owned_goes_with_its_owner(cluster, api, namespace):
    owner = api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}, namespace)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned = {"name": "owned", "ownerReferences": [reference]}
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": owned}, namespace)
    api.delete("v1", "ConfigMap", "owner", namespace)
    path = api.path("v1", "ConfigMap", namespace)
    names = lambda: {item["metadata"]["name"] for item in api.ask("GET", path)["items"]}  # noqa: E731
    until(lambda: "owned" not in names(), "the garbage collector took it", 60)
