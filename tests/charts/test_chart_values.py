"""Values that are wrong: refused before anything is changed, in words that name them."""

from __future__ import annotations

import pytest
from chart_files import places
from helm_support import Helm, HelmError, Object

WRONG: list[tuple[Object, str]] = [
    ({"replica": 2}, "replica"),
    ({"replicas": "two"}, "/replicas"),
    ({"replicas": -1}, "/replicas"),
    ({"namespaces": "ml"}, "/namespaces"),
    ({"namespaces": ["Ml"]}, "/namespaces/0"),
    ({"namespaces": ["ml", "ml"]}, "/namespaces"),
    ({"image": {"repo": "x"}}, "repo"),
    ({"image": {"repository": ""}}, "/image/repository"),
    ({"image": {"tag": "a b"}}, "/image/tag"),
    ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"images": {"router": {}}}, "router"),
    ({"images": {"server": {"pullPolicy": "Always"}}}, "pullPolicy"),
    ({"imagePullSecrets": [{"name": "x"}]}, "/imagePullSecrets/0"),
    ({"global": {"imageRegistry": 5}}, "/global/imageRegistry"),
    ({"jobs": {"priorityClass": {"value": 10}}}, "/jobs/priorityClass/value"),
    ({"serving": {"priorityClass": {"value": -1}}}, "/serving/priorityClass/value"),
    ({"settings": {"headCPU": "1"}}, "headCPU"),
    ({"settings": {"namespaces": ["ml"]}}, "namespaces"),
    ({"settings": {"headMemory": "3 GiB"}}, "/settings/headMemory"),
    ({"settings": {"logLevel": "debug"}}, "/settings/logLevel"),
    ({"settings": {"workers": 0}}, "/settings/workers"),
    ({"settings": {"runAs": 0}}, "/settings/runAs"),
    ({"settings": {"jobRetries": 1.5}}, "/settings/jobRetries"),
    ({"settings": {"leaseSeconds": 0}}, "/settings/leaseSeconds"),
    ({"settings": {"storeAccess": "RWX"}}, "/settings/storeAccess"),
    ({"port": 0}, "/port"),
    ({"extraArgs": ["log-level=DEBUG"]}, "/extraArgs/0"),
    ({"extraEnv": {"A": "b"}}, "/extraEnv"),
    ({"resources": {"request": {}}}, "request"),
    ({"podLabels": {"a": 1}}, "/podLabels/a"),
    ({"podDisruptionBudget": {"minAvailable": "half"}}, "/podDisruptionBudget/minAvailable"),
    ({"rbac": {"enabled": False}}, "enabled"),
    ({"networkPolicy": {"apiServerPorts": []}}, "/networkPolicy/apiServerPorts"),
    ({"metrics": {"serviceMonitor": {"interval": "30"}}}, "/metrics/serviceMonitor/interval"),
    ({"metrics": {"enabled": True}}, "enabled"),
    ({"dashboard": {"enabled": "yes"}}, "/dashboard/enabled"),
    ({"terminationGracePeriodSeconds": 1}, "/terminationGracePeriodSeconds"),
    # What no schema can say.
    (
        {"replicas": 2, "leaderElection": {"enabled": False}},
        "set replicas to 1, or leaderElection.enabled to true",
    ),
    ({"settings": {"renewSeconds": 15}}, "settings.renewSeconds: found 15 with settings.leaseSeconds 15"),
    ({"settings": {"retrySeconds": 10}}, "settings.retrySeconds: found 10 with settings.renewSeconds 10"),
    ({"podDisruptionBudget": {"enabled": True, "minAvailable": 1}}, "set one of them to null"),
    ({"serviceAccount": {"create": False}}, "serviceAccount.name: with serviceAccount.create=false"),
    (
        {"metrics": {"prometheusRule": {"enabled": True, "disabled": ["LeanModelSlow"]}}},
        'there is no alert "LeanModelSlow"',
    ),
]


@pytest.mark.parametrize(("values", "words"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_value_is_refused_in_words_that_name_it(helm: Helm, values: Object, words: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template(values)
    assert words.replace("/", ".").lstrip(".") in str(refused.value).replace("/", ".")


def test_a_wrong_value_of_the_definition_s_chart_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmError, match="kep"):
        helm.template({"kep": False}, chart=places.DEFINITIONS)
