"""The operator's rights: a whole life under exactly the rules that the chart grants, and none of them unused."""

from __future__ import annotations

import pytest
from faulty_proxy import Fault
from kube_client import until
from life import RECIPE_B, Life
from operator_process import errors

from leanmodel_operator.cluster import rbac

RIGHTS = "rbac.authorization.k8s.io/v1"
ACCOUNT = "leanmodel-operator"
LEASE = "leanmodel-operator"


def grant(api, namespace, everywhere):
    """Makes the service account with its roles, as the chart does; returns its token."""
    api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}, namespace)
    own = rbac.lease_rules(LEASE)
    if everywhere:
        _bind(
            api,
            "Cluster",
            None,
            f"{namespace}-{ACCOUNT}",
            rbac.namespace_rules() + rbac.cluster_rules(),
            namespace,
        )
    else:
        own = own + rbac.namespace_rules()
    _bind(api, "", namespace, ACCOUNT, own, namespace)
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return api.ask("POST", path, asked)["status"]["token"]


def _bind(api, scope, where, name, rules, namespace):
    role, meta = f"{scope}Role", {"name": name}
    api.create({"apiVersion": RIGHTS, "kind": role, "metadata": meta, "rules": rules}, where)
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name}
    api.create(
        {
            "apiVersion": RIGHTS,
            "kind": f"{role}Binding",
            "metadata": meta,
            "subjects": [subject],
            "roleRef": ref,
        },
        where,
    )


def granted(rules):
    return {
        (group, resource, verb)
        for rule in rules for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
    }  # fmt: skip


def rocky(life, proxy):
    """A life in which each kind of write is refused once as a conflict: what is read after that counts as well."""
    refused = set()

    def once(call):
        kind = (call.verb, call.resource)
        if call.number and kind not in refused:
            refused.add(kind)
            return Fault(status=409)
        return None

    proxy.rules.fault = once
    life.how.held.add("compress-large")
    life.create()
    until(
        lambda: ("", "pods/log", "get") in proxy.used(),
        "the log of a running Job is asked for its progress",
        30,
    )
    life.how.held.clear()
    life.simulator.again(life.namespace)
    life.ready()
    life.change(lean={"steps": RECIPE_B})
    life.ready()
    life.rest()
    life.delete()
    life.gone()


@pytest.mark.parametrize("everywhere", [False, True], ids=["roles alone", "cluster role"])
def test_a_life_under_exactly_its_rights(api, simulator, home, operator, proxy, everywhere):
    token = grant(api, home, everywhere)
    # A later --namespaces wins over the fixture's: none means all of them.
    one = operator(*(["--namespaces", ""] if everywhere else []), token=token).start()
    try:
        rocky(Life(api, simulator, home), proxy)
    finally:
        if everywhere:
            for kind in ("ClusterRole", "ClusterRoleBinding"):
                api.delete(RIGHTS, kind, f"{home}-{ACCOUNT}")
    asked = [call for call in proxy.rules.calls if call.resource]
    assert [call for call in asked if call.status in (401, 403)] == []
    rules = rbac.namespace_rules() + rbac.lease_rules(LEASE) + (rbac.cluster_rules() if everywhere else [])
    assert proxy.used() == granted(rules)
    assert errors(one.lines()) == []


def test_a_right_that_is_missing_is_named_and_nothing_hangs(api, simulator, home, operator, proxy):
    token = grant(api, home, False)
    role = api.get(RIGHTS, "Role", ACCOUNT, home)
    kept = [rule for rule in role["rules"] if rule["resources"] != ["jobs"]]
    api.ask("PUT", api.path(RIGHTS, "Role", home, ACCOUNT), {**role, "rules": kept})
    one = operator(token=token).start()

    def said():
        return [line for line in one.lines() if "jobs.batch is forbidden" in str(line)]

    until(said, "the log names the missing right", 60)
    api.ask("PUT", api.path(RIGHTS, "Role", home, ACCOUNT), {"apiVersion": RIGHTS, "kind": "Role", "metadata": {"name": ACCOUNT}, "rules": role["rules"]})  # fmt: skip
    life = Life(api, simulator, home)
    life.create()
    life.ready()
