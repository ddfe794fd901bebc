"""values.schema.json: what may stand in the values of the chart leanmodel. Unknown names are refused everywhere.

Kubernetes' own types (affinity, tolerations, security contexts …) are left to the API server, which knows them best.
"""

from __future__ import annotations

import json
from typing import Any

from . import settings

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
SWITCH: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
NO_NAME_OR_NAME: Schema = {"type": "string", "pattern": r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"}
NAMES: Schema = {"type": "array", "items": NAME, "uniqueItems": True}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
PULL_POLICY: Schema = {"type": "string", "enum": ["Always", "IfNotPresent", "Never"]}
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))*$"}
COUNT_OR_SHARE: Schema = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+%$"}, {"type": "null"}]
}


def closed(**properties: Schema) -> Schema:
    """Return the schema of an object with these properties and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def image(**more: Schema) -> Schema:
    """Return the schema of an image."""
    return closed(
        registry=TEXT,
        repository={"type": "string", "minLength": 1},
        tag={"type": "string", "pattern": r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$"},
        digest={"type": "string", "pattern": r"^(sha256:[0-9a-f]{64})?$"},
        **more,
    )


def priority_class(limit: Schema) -> Schema:
    """Return the schema of a priority class."""
    return closed(create=SWITCH, name=NO_NAME_OR_NAME, value={"type": "integer", **limit})


def monitor() -> Schema:
    """Return the schema of a ServiceMonitor or PodMonitor."""
    return closed(
        enabled=SWITCH, namespace=NO_NAME_OR_NAME, labels=TEXTS, interval=DURATION, scrapeTimeout=DURATION,
        relabelings=OBJECTS, metricRelabelings=OBJECTS,
    )  # fmt: skip


def build() -> Schema:
    """Return the whole schema."""
    values = closed(
        # What a chart above this one says to all its parts; what it says to others is no concern of ours.
        **{"global": {"type": "object", "properties": {"imageRegistry": TEXT, "imagePullSecrets": NAMES}}},
        # A chart above this one may switch it on and off by this name; here it does nothing.
        enabled=SWITCH,
        nameOverride=NO_NAME_OR_NAME, fullnameOverride=NO_NAME_OR_NAME, commonLabels=TEXTS, namespaces=NAMES,
        replicas={"type": "integer", "minimum": 0},
        leaderElection=closed(enabled=SWITCH, leaseName=NO_NAME_OR_NAME),
        image=image(pullPolicy=PULL_POLICY), imagePullSecrets=NAMES,
        images=closed(pullPolicy=PULL_POLICY, compressor=image(), prover=image(), server=image()),
        jobs=closed(pullSecrets=NAMES, priorityClass=priority_class({"maximum": 0, "minimum": -1_000_000_000})),
        serving=closed(pullSecrets=NAMES, priorityClass=priority_class({"minimum": 0, "maximum": 1_000_000_000})),
        settings=settings.schema(),
        port=PORT, extraEnv=OBJECTS, extraArgs={"type": "array", "items": {"type": "string", "pattern": "^--"}},
        resources=closed(requests=OBJECT, limits=OBJECT, claims=OBJECTS),
        podSecurityContext=OBJECT, securityContext=OBJECT, priorityClassName=NO_NAME_OR_NAME,
        podLabels=TEXTS, podAnnotations=TEXTS, nodeSelector=TEXTS, tolerations=OBJECTS, affinity=OBJECT,
        topologySpreadConstraints=OBJECTS, terminationGracePeriodSeconds={"type": "integer", "minimum": 5},
        podDisruptionBudget=closed(enabled=SWITCH, minAvailable=COUNT_OR_SHARE, maxUnavailable=COUNT_OR_SHARE),
        serviceAccount=closed(create=SWITCH, name=NO_NAME_OR_NAME, annotations=TEXTS),
        rbac=closed(create=SWITCH, aggregateToUserRoles=SWITCH),
        networkPolicy=closed(
            enabled=SWITCH, metricsFrom=OBJECTS, apiServerPorts={"type": "array", "items": PORT, "minItems": 1},
            extraEgress=OBJECTS,
        ),
        metrics=closed(
            service=closed(port=PORT, annotations=TEXTS), serviceMonitor=monitor(), podMonitor=monitor(),
            prometheusRule=closed(
                enabled=SWITCH, namespace=NO_NAME_OR_NAME, labels=TEXTS, alertLabels=TEXTS,
                disabled={"type": "array", "items": TEXT},
            ),
        ),
        dashboard=closed(
            enabled=SWITCH, namespace=NO_NAME_OR_NAME, sidecarLabel={"type": "string", "minLength": 1},
            sidecarLabelValue=TEXT, annotations=TEXTS,
        ),
    )  # fmt: skip
    return {"$schema": "http://json-schema.org/draft-07/schema#", **values}


def render() -> str:
    """Return the text of values.schema.json."""
    return json.dumps(build(), indent=1) + "\n"
