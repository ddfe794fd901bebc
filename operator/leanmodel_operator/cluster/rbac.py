"""What the operator may do: the rules that the chart grants, and nothing else. Pure."""

from __future__ import annotations

from typing import Any

from .names import GROUP, PLURAL

Rule = dict[str, Any]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Rule:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def namespace_rules() -> list[Rule]:
    """Return the rules wherever LeanModels are looked after: of a ClusterRole, or of a Role per namespace."""
    return [
        _rule(GROUP, [PLURAL], ["get", "list", "watch"]),
        _rule(GROUP, [f"{PLURAL}/status"], ["patch"]),
        _rule("batch", ["jobs"], ["get", "list", "watch", "create", "delete"]),
        _rule("", ["pods"], ["list", "watch"]),
        _rule("", ["pods/log"], ["get"]),
        _rule("", ["configmaps"], ["get", "list", "watch", "create", "patch", "delete"]),
        # No list and no watch: a Secret is read by its name alone.
        _rule("", ["secrets"], ["get", "create"]),
        _rule("", ["serviceaccounts"], ["get", "list", "create"]),
        _rule("", ["persistentvolumeclaims"], ["get", "list", "create"]),
        _rule("policy", ["poddisruptionbudgets"], ["get", "list", "create"]),
        _rule("ray.io", ["rayservices"], ["get", "list", "watch", "create", "patch"]),
        _rule("", ["events"], ["create"]),
    ]


def cluster_rules() -> list[Rule]:
    """Return the rule beside them when all namespaces are looked after: kopf follows the kinds that there are."""
    return [_rule("apiextensions.k8s.io", ["customresourcedefinitions"], ["list", "watch"])]


def lease_rules(name: str) -> list[Rule]:
    """Return the rules in the Lease's own namespace.

    Args:
        name: of the Lease. Creating cannot be held to a name: there is none yet when it is asked.
    """
    return [
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        _rule("coordination.k8s.io", ["leases"], ["get", "update"]) | {"resourceNames": [name]},
    ]
