"""A release that is watched: its monitors find what there is to watch, and its queries return data."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from chart_files import places, queries
from cluster.control_plane import ControlPlane
from cluster.prometheus import Prometheus
from cluster.servers import free_ports
from helm_support import Helm
from kube_client import ROOT, KubeClient, until
from server_support import exists, make_namespace, own_address, serve_definitions
from watch_support import SCRAPE, let_run, operator_of, pods, prometheus_by_monitors

from leanmodel_api.manifest import load
from leanmodel_operator.cluster.children import serving
from leanmodel_operator.cluster.children.owner import Owner
from leanmodel_operator.cluster.settings import Settings

HOME, ML = "watched-system", "watched"
OURS = "leanmodel_operator_"
QUICKSTART = yaml.safe_load((ROOT / "examples" / "quickstart" / "leanmodel.yaml").read_text())

pytestmark = pytest.mark.timeout(420)


@dataclass
class Watched:
    """What a test may ask."""

    prometheus: Prometheus
    port: int
    address: str


def leanmodel(name: str) -> dict[str, Any]:
    """The quickstart's LeanModel under another name."""
    return copy.deepcopy(QUICKSTART) | {"metadata": {"name": name}}


def serving_pod(name: str, port: int) -> dict[str, Any]:
    """The pod in which a LeanModel's router runs, as the operator's own code makes it, but for the metrics' port."""
    model = load(leanmodel(name) | {"metadata": {"name": name, "namespace": ML, "uid": "u"}})
    template = serving.head_template(Owner(name, ML, "u"), model, Settings())
    for wanted in template["spec"]["containers"][0]["ports"]:
        if wanted["name"] == "metrics":
            wanted["containerPort"] = port
    template["spec"]["serviceAccountName"] = "default"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"] | {"name": f"{name}-head"},
            "spec": template["spec"]}  # fmt: skip


@pytest.fixture(scope="module")
def watched(
    helm: Helm, api: KubeClient, controllers: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """A release with everything that watches, the operator at work on two LeanModels, and a Prometheus."""
    folder, address, (port,) = tmp_path_factory.mktemp("watched"), own_address(), free_ports(1)
    serve_definitions(api, "prometheus-operator")
    for name in (HOME, ML):
        make_namespace(api, name)
    release = helm.on(controllers.kubeconfig)
    release.run(
        "upgrade", "--install", "watched-crds", places.DEFINITIONS, "--namespace", HOME, "--take-ownership"
    )
    values = {
        "port": port, "fullnameOverride": "watched",
        # The API server is taken away for some seconds below; the leader has to bear that.
        "settings": {"leaseSeconds": 90, "renewSeconds": 60, "retrySeconds": 1, "resyncSeconds": 5},
        "metrics": {"serviceMonitor": {"enabled": True, "interval": SCRAPE},
                    "podMonitor": {"enabled": True, "interval": SCRAPE}, "prometheusRule": {"enabled": True}},
    }  # fmt: skip
    release.run("install", "watched", places.OPERATOR, "--namespace", HOME, values=values)
    (pod,) = until(
        lambda: pods(api, HOME, "app.kubernetes.io/instance=watched"), "the Deployment has a pod", 60.0
    )
    let_run(api, HOME, pod["metadata"]["name"], address)
    until(
        lambda: api.get("v1", "Endpoints", "watched", HOME).get("subsets"), "the Service has an address", 60.0
    )
    until(lambda: exists(api, "v1", "ServiceAccount", "default", ML), "the namespace has its account", 60.0)
    api.create(serving_pod("support", port), ML)
    let_run(api, ML, "support-head", address)
    try:
        with operator_of(api, controllers, pod, folder):
            _work(api, controllers)
            jobs = {f"serviceMonitor/{HOME}/watched", f"podMonitor/{HOME}/watched-serving"}
            with prometheus_by_monitors(api, controllers, HOME, jobs, folder) as running:
                yield Watched(running, port, address)
    finally:
        release.run("uninstall", "watched", "--namespace", HOME)


def _work(api: KubeClient, plane: ControlPlane) -> None:
    """Let the operator have every kind of turn: good ones, one that meets a stranger, one without an API server."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "lm-stranger-job"}}
    for name in ("lm-stranger-job", "lm-stranger-serve"):
        api.create(account | {"metadata": {"name": name}}, ML)
    for name in ("support", "stranger"):
        api.create(leanmodel(name), ML)

    def told() -> bool:
        path = api.path("leanmodel.io/v1alpha1", "LeanModel", ML, "support")
        return bool(api.ask("GET", path).get("status", {}).get("conditions"))

    until(told, "the operator has written a status", 60.0)
    plane.servers["kube-apiserver"].kill()
    plane.start_api_server()


def test_what_there_is_to_watch_is_found_and_named(watched: Watched) -> None:
    def up() -> dict[str, dict[str, str]]:
        found = {s.labels["job"]: s.labels for s in watched.prometheus.query("up == 1")}
        return found if len(found) == 2 else {}

    found = until(up, "both targets are up", 60.0)
    (operator,) = [labels for labels in found.values() if labels.get("service") == "watched"]
    assert operator["namespace"] == HOME and operator["pod"].startswith("watched-")
    (router,) = [labels for labels in found.values() if "leanmodel" in labels]
    assert (router["namespace"], router["leanmodel"], router["part"]) == (ML, "support", "head")
    assert router["instance"] == f"{watched.address}:{watched.port}"
    assert {target["scrapeInterval"] for target in watched.prometheus.targets()} == {SCRAPE}


def test_the_rules_run(watched: Watched) -> None:
    wanted = {rule["alert"] for rule in queries.rules()}

    def all_evaluated() -> bool:
        found = {rule["name"]: rule["health"] for rule in watched.prometheus.rules()}
        return set(found) == wanted and set(found.values()) == {"ok"}

    until(all_evaluated, "every rule was evaluated without an error", 60.0)


DASHBOARD = [q for q in queries.dashboard_queries() if OURS in q.text]
SELECTORS = sorted(
    {use.selector for q in queries.rule_queries() for use in queries.uses(q.text) if OURS in use.name}
)


@pytest.mark.parametrize("query", DASHBOARD, ids=lambda query: query.where)
def test_a_panel_about_the_operator_shows_data(watched: Watched, query: queries.Query) -> None:
    text = queries.filled(query.text, __rate_interval="30s", __range="5m")

    def shown() -> bool:
        found = watched.prometheus.query(text)
        return bool(found) and all(sample.is_number for sample in found)

    until(shown, text, 60.0)


@pytest.mark.parametrize("selector", SELECTORS)
def test_what_a_rule_about_the_operator_asks_for_is_there(watched: Watched, selector: str) -> None:
    until(lambda: watched.prometheus.query(selector), selector, 60.0)


def test_both_tests_of_queries_together_leave_none_out() -> None:
    """tests/serving runs those about the router, these run the others, and no query is about both."""
    for query in [*queries.dashboard_queries(), *queries.rule_queries()]:
        names = {use.name for use in queries.uses(query.text)}
        assert len({name.startswith(OURS) for name in names}) == 1, query.where
