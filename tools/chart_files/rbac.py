"""The operator's rules as a file of the chart; what they are says ``leanmodel_operator.cluster.rbac``."""

from __future__ import annotations

import yaml

from leanmodel_operator.cluster import rbac

LEASE_NAME = "LEASE_NAME"
"""Stands for the Lease's name, which a release decides."""


def render() -> str:
    """Return files/rbac.yaml: the rules of each part, as templates/rbac.yaml reads them."""
    parts = {
        "namespace": rbac.namespace_rules(),
        "cluster": rbac.cluster_rules(),
        "lease": rbac.lease_rules(LEASE_NAME),
    }
    head = "# Written by `make charts` from operator/leanmodel_operator/cluster/rbac.py; do not edit.\n"
    return head + yaml.safe_dump(parts, sort_keys=False)
