"""What the charts render, without a cluster: the operator's settings, rights, names, and what each value switches."""

from __future__ import annotations

import dataclasses
import tarfile
from typing import Any

import pytest
import yaml
from chart_files import places, queries
from chart_files.places import ROOT
from cluster import binaries
from helm_support import EVERYTHING, NAMESPACE, Helm, Object, container, environment, one

from leanmodel_operator.cluster import rbac
from leanmodel_operator.cluster.settings import Settings


@pytest.mark.parametrize("values", [{}, EVERYTHING, EVERYTHING | {"namespaces": ["ml", "research"]}])
def test_helm_lint_is_content(helm: Helm, values: Object) -> None:
    helm.run("lint", "--strict", places.OPERATOR, values=values)


@pytest.mark.parametrize("keep", [True, False])
def test_helm_lint_is_content_with_the_definition(helm: Helm, keep: bool) -> None:
    helm.run("lint", "--strict", places.DEFINITIONS, values={"keep": keep})


def test_helm_is_the_pinned_one_and_knows_its_kubernetes(helm: Helm) -> None:
    assert helm.run("version", "--template", "{{.Version}}") == binaries.version("helm", "helm.sh/helm/v3")
    assert helm.template(), "a helm that takes every cluster for Kubernetes 1.20 refuses the chart"


# ------------------------------------------------------------------ settings


def settings(helm: Helm, values: Object) -> Settings:
    """The settings that the operator reads in a pod of the chart."""
    objects = helm.template(values)
    found = environment(objects)
    known = {f"LEANMODEL_{item.name.upper()}" for item in dataclasses.fields(Settings)}
    assert {name for name in found if name.startswith("LEANMODEL_")} == known
    return Settings.read(container(objects).get("args", ()), found)


IN_THE_CHART = {
    "lease_namespace": NAMESPACE, "lease_name": "leanmodel-operator", "identity": "leanmodel-operator-0",
    "job_priority_class": "leanmodel-operator-jobs",
}  # fmt: skip


def test_without_values_the_operator_runs_with_its_own_defaults(helm: Helm) -> None:
    assert settings(helm, {}) == dataclasses.replace(Settings(), **IN_THE_CHART)


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ({"namespaces": ["a", "b"], "jobs": {"priorityClass": {"create": False}}},
         {"namespaces": ("a", "b"), "job_priority_class": ""}),
        ({"namespaces": ["a"]}, {"namespaces": ("a",), "job_priority_class": f"{NAMESPACE}-leanmodel-operator-jobs"}),
        ({"leaderElection": {"enabled": False, "leaseName": "mine"}}, {"leader_election": False, "lease_name": "mine"}),
        ({"port": 9000}, {"http_port": 9000}),
        ({"global": {"imageRegistry": "registry.example/team"}},
         {"compressor_image": "registry.example/team/leanmodel/compressor:0.1.0",
          "prover_image": "registry.example/team/leanmodel/server:0.1.0",
          "server_image": "registry.example/team/leanmodel/server:0.1.0"}),
        ({"global": {"imageRegistry": "a.example"},
          "images": {"pullPolicy": "Never", "server": {"registry": "b.example", "repository": "s", "tag": "v2"},
                     "prover": {"digest": "sha256:" + "0" * 64}}},
         {"compressor_image": "a.example/leanmodel/compressor:0.1.0", "server_image": "b.example/s:v2",
          "prover_image": "a.example/leanmodel/server@sha256:" + "0" * 64, "image_pull_policy": "Never"}),
        ({"global": {"imagePullSecrets": ["all"]}, "jobs": {"pullSecrets": ["jobs", "all"]}},
         {"job_pull_secrets": ("all", "jobs"), "serving_pull_secrets": ("all",)}),
        ({"serving": {"priorityClass": {"create": True, "name": "mine"}},
          "jobs": {"priorityClass": {"create": False, "name": "theirs"}}},
         {"serving_priority_class": "mine", "job_priority_class": "theirs"}),
        ({"settings": {"jobDeadlineSeconds": 5_000_000, "runAs": 1_000_000, "resyncSeconds": 1e6, "retrySeconds": 0.5}},
         {"job_deadline_seconds": 5_000_000, "run_as": 1_000_000, "resync_seconds": 1e6, "retry_seconds": 0.5}),
        ({"settings": {"store": "pvc://models/lean", "storeClass": "fast", "logLevel": "DEBUG", "headCpu": "500m",
                       "endpoint": "http://{service}.{namespace}:{port}"}},
         {"store": "pvc://models/lean", "store_class": "fast", "log_level": "DEBUG", "head_cpu": "500m",
          "endpoint": "http://{service}.{namespace}:{port}"}),
        ({"extraArgs": ["--log-level=WARNING"], "settings": {"logLevel": "DEBUG"}}, {"log_level": "WARNING"}),
        ({"fullnameOverride": "lean"}, {"lease_name": "lean", "job_priority_class": "lean-jobs"}),
    ],
)  # fmt: skip
def test_a_value_reaches_the_operator(helm: Helm, values: Object, read: dict[str, Any]) -> None:
    assert settings(helm, values) == dataclasses.replace(Settings(), **(IN_THE_CHART | read))


# ------------------------------------------------------------------ rights


def test_the_cluster_role_is_the_code_s_rules(helm: Helm) -> None:
    objects = helm.template()
    assert (
        one(objects, "ClusterRole", "leanmodel-operator")["rules"]
        == rbac.namespace_rules() + rbac.cluster_rules()
    )
    assert one(objects, "Role")["rules"] == rbac.lease_rules("leanmodel-operator")
    assert one(objects, "Role")["metadata"]["namespace"] == NAMESPACE


def test_with_namespaces_there_are_roles_alone(helm: Helm) -> None:
    values = {"namespaces": ["ml", "research"], "rbac": {"aggregateToUserRoles": False},
              "jobs": {"priorityClass": {"create": False}}}  # fmt: skip
    objects = helm.template(values)
    roles = {
        (o["metadata"]["namespace"], o["metadata"]["name"]): o["rules"]
        for o in objects
        if o["kind"] == "Role"
    }
    assert roles == {
        ("ml", "leanmodel-operator"): rbac.namespace_rules(),
        ("research", "leanmodel-operator"): rbac.namespace_rules(),
        (NAMESPACE, "leanmodel-operator-lease"): rbac.lease_rules("leanmodel-operator"),
    }
    bindings = [o for o in objects if o["kind"] == "RoleBinding"]
    assert {(o["metadata"]["namespace"], o["roleRef"]["name"]) for o in bindings} == set(roles)
    account = {"kind": "ServiceAccount", "name": "leanmodel-operator", "namespace": NAMESPACE}
    assert all(o["subjects"] == [account] for o in bindings)
    assert [o["kind"] for o in objects if "namespace" not in o["metadata"]] == []


def test_without_an_election_there_is_no_right_to_a_lease(helm: Helm) -> None:
    objects = helm.template({"leaderElection": {"enabled": False}})
    assert [o["metadata"]["name"] for o in objects if o["kind"] == "Role"] == []


def test_no_roles_and_no_account_where_others_make_them(helm: Helm) -> None:
    values = {"rbac": {"create": False, "aggregateToUserRoles": False},
              "serviceAccount": {"create": False, "name": "theirs"}}  # fmt: skip
    objects = helm.template(values)
    assert not {"ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & {
        o["kind"] for o in objects
    }
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"


# ------------------------------------------------------------------ the rest


def test_by_default_there_is_what_runs_and_nothing_that_watches(helm: Helm) -> None:
    assert sorted((o["kind"], o["metadata"]["name"]) for o in helm.template()) == [
        ("ClusterRole", "leanmodel-operator"),
        ("ClusterRole", "leanmodel-operator-edit"),
        ("ClusterRole", "leanmodel-operator-view"),
        ("ClusterRoleBinding", "leanmodel-operator"),
        ("Deployment", "leanmodel-operator"),
        ("PriorityClass", "leanmodel-operator-jobs"),
        ("Role", "leanmodel-operator-lease"),
        ("RoleBinding", "leanmodel-operator-lease"),
        ("Service", "leanmodel-operator"),
        ("ServiceAccount", "leanmodel-operator"),
    ]


def test_every_object_carries_the_release_and_the_common_labels(helm: Helm) -> None:
    for found in helm.template(EVERYTHING):
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "leanmodel"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["team"] == "ml"


def test_jobs_stand_below_what_serves_and_both_classes_outlive_the_release(helm: Helm) -> None:
    objects = helm.template({"serving": {"priorityClass": {"create": True}}})
    jobs = one(objects, "PriorityClass", "leanmodel-operator-jobs")
    serving = one(objects, "PriorityClass", "leanmodel-operator-serving")
    assert jobs["value"] < 0 <= serving["value"]
    assert jobs["value"] > -10, "the cluster autoscaler makes no room for less"
    assert jobs["preemptionPolicy"] == "Never"
    for found in (jobs, serving):
        assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_rules_of_the_release_are_the_rules_that_are_tested(helm: Helm) -> None:
    rule = one(helm.template({"metrics": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(places.RULES.read_text())
    values = {"metrics": {"prometheusRule": {"enabled": True, "alertLabels": {"team": "ml"},
                                             "disabled": ["LeanModelNotReady", "LeanModelDegraded"]}}}  # fmt: skip
    groups = one(helm.template(values), "PrometheusRule")["spec"]["groups"]
    left = [found for group in groups for found in group["rules"]]
    wanted = [
        found for found in queries.rules() if found["alert"] not in ("LeanModelNotReady", "LeanModelDegraded")
    ]
    assert [found["alert"] for found in left] == [found["alert"] for found in wanted]
    assert all(found["labels"]["team"] == "ml" and found["labels"]["severity"] for found in left)


def test_the_dashboard_is_shipped_as_it_is_committed(helm: Helm) -> None:
    found = one(helm.template(EVERYTHING), "ConfigMap")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"] == {"leanmodel.json": places.DASHBOARD.read_text()}


def test_the_definition_is_the_code_s_and_is_kept(helm: Helm) -> None:
    (found,) = helm.template(chart=places.DEFINITIONS)
    ours = yaml.safe_load((ROOT / "crds" / "leanmodel.yaml").read_text())
    assert found["spec"] == ours["spec"]
    assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (found,) = helm.template({"keep": False, "labels": {"team": "ml"}}, chart=places.DEFINITIONS)
    assert "annotations" not in found["metadata"] and found["metadata"]["labels"]["team"] == "ml"


def test_a_package_has_everything_and_no_tests(helm: Helm, tmp_path: Any) -> None:
    helm.run("package", places.OPERATOR, "--destination", tmp_path)
    archive = tmp_path / "leanmodel-0.1.0.tgz"
    kinds = {o["kind"] for o in helm.template(EVERYTHING, chart=archive)}
    assert {"PrometheusRule", "ConfigMap", "ClusterRole"} <= kinds
    with tarfile.open(archive) as packed:
        assert not [name for name in packed.getnames() if "tests" in name]


def test_a_chart_above_may_switch_it_and_have_globals_of_its_own(helm: Helm, tmp_path: Any) -> None:
    above = tmp_path / "above"
    (above / "charts").mkdir(parents=True)
    (above / "Chart.yaml").write_text(
        "apiVersion: v2\nname: above\nversion: 1.0.0\n"
        "dependencies: [{name: leanmodel, version: 0.1.0, condition: leanmodel.enabled}]\n"
    )
    helm.run("package", places.OPERATOR, "--destination", above / "charts")
    values = {
        "leanmodel": {"enabled": True, "replicas": 2},
        "global": {"imageRegistry": "r.example", "ours": 1},
    }
    objects = helm.template(values, chart=above)
    assert one(objects, "Deployment")["spec"]["replicas"] == 2
    assert container(objects)["image"] == "r.example/leanmodel/operator:0.1.0"
    assert helm.template(values | {"leanmodel": {"enabled": False}}, chart=above) == []
