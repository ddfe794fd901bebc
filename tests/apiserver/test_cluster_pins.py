"""What the programs are built from and where they are looked for: pins, keys, messages."""

from __future__ import annotations

import re

import pytest
from cluster import binaries, host, layout, machine
from cluster.words import ClusterError


@pytest.mark.parametrize("module", sorted({b.module for b in binaries.BINARIES.values()}))
def test_a_module_is_pinned_whole(module):
    folder = binaries.MODULES / module
    text = (folder / "go.mod").read_text()
    assert text.startswith(f"module leanmodel/cluster/{module}\n")
    assert not re.search(r"\bhttps?://", text + (folder / "go.sum").read_text())
    required = re.findall(r"^\t(\S+) v\S+", text, re.MULTILINE)
    sums = (folder / "go.sum").read_text()
    assert all(f"{path} " in sums for path in required if not path.startswith("k8s.io/"))


def test_staging_modules_are_replaced_by_one_release():
    text = (binaries.MODULES / "kubernetes" / "go.mod").read_text()
    release = binaries.version("kubernetes", "k8s.io/kubernetes").replace("v1.", "v0.")
    replaced = re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ (\S+)", text, re.MULTILINE)
    assert len(replaced) == 31
    assert set(replaced) == {release}


def test_the_assets_folder_goes_first_and_the_cache_follows(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "etcd").touch()
    variables = {binaries.ASSETS: str(tmp_path / "assets"), "LEANMODEL_CACHE": str(tmp_path / "cache")}
    assert binaries.find("etcd", variables) == tmp_path / "assets" / "etcd"
    place = binaries.place("kubelet", variables)
    assert place.parent.parent == tmp_path / "cache" / "cluster" / "bin"
    with pytest.raises(ClusterError, match=r"kubelet is neither in the cache .*\n  run `make "):
        binaries.find("kubelet", variables)


def test_a_changed_pin_has_another_place(tmp_path, monkeypatch):
    (tmp_path / "etcd").mkdir()
    (tmp_path / "etcd" / "go.sum").touch()
    monkeypatch.setattr(binaries, "MODULES", tmp_path)
    keys = set()
    for version in ("v1", "v2"):
        (tmp_path / "etcd" / "go.mod").write_text(version)
        keys.add(binaries.key("etcd"))
    assert len(keys) == 2


def test_a_missing_go_is_said_in_one_message(monkeypatch):
    monkeypatch.setattr(binaries.shutil, "which", lambda name, path=None: None)
    with pytest.raises(ClusterError, match=r"Go is not on the PATH.*\n  install Go .* KUBEBUILDER_ASSETS"):
        binaries.find_go("etcd")


def test_missing_packages_are_named_once_and_together():
    lacking = machine.missing(
        machine.NODE_PACKAGES, lambda program: program not in ("containerd", "ctr", "ip")
    )
    assert lacking == ["containerd", "iproute2"]


@pytest.mark.parametrize(
    ("routes", "link"),
    [
        ([], "172.29.16.0/30"),
        (["172.29.16.0/24"], "172.29.17.0/30"),
        (["172.29.0.0/19", "10.0.0.1"], None),
        (["10.244.3.0/24"], "172.29.16.0/30"),
    ],
)
def test_the_link_meets_no_route_of_the_host(tmp_path, routes, link):
    if link is None:
        with pytest.raises(ClusterError, match="meet routes of the host"):
            layout.choose(tmp_path, routes)
    else:
        assert layout.choose(tmp_path, routes).link == link


@pytest.mark.parametrize("route", ["10.96.0.0/16", "10.0.0.0/8", "10.244.0.0/16"])
def test_another_cluster_of_the_host_is_not_disturbed(tmp_path, route):
    with pytest.raises(ClusterError, match="the host has a route that meets"):
        layout.choose(tmp_path, [route])


def test_cgroups_of_either_version_are_found():
    first = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    second = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
    assert [path.name for path in host.hierarchies(first)] == ["cpu", "unified"]
    assert [str(path) for path in host.hierarchies(second)] == ["/sys/fs/cgroup"]


def test_rules_are_taken_away_as_they_were_put(tmp_path):
    for rule in host.rules(layout.Layout(tmp_path, layout.LINKS[0])):
        put, gone = host.iptables("-I", rule), host.iptables("-D", rule)
        assert [a for a, b in zip(put, gone, strict=True) if a != b] == ["-I"]


def test_a_machine_that_gives_no_cgroups_is_told_as_such(tmp_path):
    assert "none are mounted" in host.refused("tmpfs /tmp tmpfs rw 0 0\n")
    gone = tmp_path / "cgroup"
    assert str(gone) in host.refused(f"cgroup2 {gone} cgroup2 ro 0 0\n")
