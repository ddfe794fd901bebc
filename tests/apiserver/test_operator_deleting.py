"""Deleting never hangs, whoever is gone: the operator, the namespace, KubeRay's kinds, or a Job half done."""

from __future__ import annotations

import pytest
from cluster import binaries
from kube_client import RefusedError, until
from stage import define

RAYSERVICES = "rayservices.ray.io"


def test_with_the_operator_gone_for_good(life, operator):
    one = operator().start()
    life.create()
    life.ready()
    one.kill()
    life.delete()
    life.gone()


def test_with_a_job_running(life, operator):
    operator().start()
    life.how.held.add("compress-large")
    life.create()
    until(lambda: any(entry.startswith("Pod/") for entry in life.left()), "a Job runs", 90)
    life.delete()
    life.gone()
    assert life.doubled() == [], "nothing is made for what is gone"


def test_the_same_name_again_right_after(life, operator):
    operator().start()
    life.create()
    life.ready()
    uid = life.body()["metadata"]["uid"]
    life.delete()
    life.api.delete("v1", "ConfigMap", f"{life.name}-inputs", life.namespace)
    life.create()
    life.ready()
    assert life.body()["metadata"]["uid"] != uid
    life.rest()
    owners = {
        owner["uid"]
        for item in life.api.list("v1", "ConfigMap", life.namespace, "app.kubernetes.io/managed-by=leanmodel")
        for owner in item["metadata"]["ownerReferences"]
    }
    assert owners == {life.body()["metadata"]["uid"]}


@pytest.mark.parametrize("stage", ["compress-large", "nothing"])
def test_with_the_namespace_terminating(life, operator, api, stage):
    one = operator().start()
    life.how.held.add(stage)
    life.create()
    if stage == "nothing":
        life.ready()
    else:
        until(lambda: any(entry.startswith("Pod/") for entry in life.left()), "a Job runs", 90)
    api.delete("v1", "Namespace", life.namespace)

    def gone():
        try:
            return not api.get("v1", "Namespace", life.namespace)
        except RefusedError as error:
            return error.code == 404

    until(gone, "the namespace is gone", 60)
    assert not one.ended() or one.stop() == 1, "it goes on, or ends because its own Lease went along"


def test_with_kuberay_s_kinds_gone(life, operator, api):
    operator().start()
    life.create()
    life.ready()
    try:
        api.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", RAYSERVICES)
        life.reach(
            lambda status: any(c["reason"] == "KubeRayMissing" for c in status["conditions"]),
            "the status says that KubeRay is missing",
        )
        life.delete()
        life.gone()
    finally:

        def away():
            try:
                api.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", RAYSERVICES)
            except RefusedError as error:
                return error.code == 404
            return False

        until(away, "the definition is gone", 90)
        define(api, binaries.definitions() / "ray.io_rayservices.yaml")


def test_kuberay_s_kinds_come_late(life, operator, api):
    """The operator may be installed before KubeRay is."""
    api.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", RAYSERVICES)
    try:
        operator().start()
        life.create()
        life.reach(
            lambda status: any(c["reason"] == "KubeRayMissing" for c in status["conditions"]),
            "the status says that KubeRay is missing",
        )
    finally:
        define(api, binaries.definitions() / "ray.io_rayservices.yaml")
    life.ready()
