"""The pure parts around the plan: names, settings, manifests, children, words and rights."""

from __future__ import annotations

import json

import pytest
from cluster_world import World, manifest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_operator.cluster import names, rbac
from leanmodel_operator.cluster.accept import accept
from leanmodel_operator.cluster.api import KINDS
from leanmodel_operator.cluster.children.pods import merged
from leanmodel_operator.cluster.observed import PodSeen
from leanmodel_operator.cluster.reading import digest_inputs
from leanmodel_operator.cluster.served import covers
from leanmodel_operator.cluster.settings import Settings
from leanmodel_operator.cluster.trouble import pod_trouble
from leanmodel_operator.cluster.volumes import Inputs

# ------------------------------------------------------------------ names


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True))
def test_names_of_children_are_valid_and_short_enough(name):
    for made, limit in ((names.rayservice(name), 47), (names.child(name, "compress-large", "0" * 16), 63)):
        assert len(made) <= limit and made[0].isalpha() and made[-1].isalnum()


def test_long_names_that_begin_alike_stay_apart():
    a, b = "a" * 62 + "b", "a" * 62 + "c"
    assert names.rayservice(a) != names.rayservice(b)


# ------------------------------------------------------------------ settings


def test_a_flag_wins_over_the_environment_which_wins_over_the_default():
    environment = {
        "LEANMODEL_WORKERS": "3",
        "LEANMODEL_NAMESPACES": "a, b",
        "LEANMODEL_LEADER_ELECTION": "false",
    }
    found = Settings.read(["--workers", "5"], environment)
    assert (found.workers, found.namespaces, found.leader_election) == (5, ("a", "b"), False)
    assert Settings.read([], {}) == Settings()


def test_a_wrong_setting_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        Settings.read([], {"LEANMODEL_WORKERS": "many"})
    assert "LEANMODEL_WORKERS" in capsys.readouterr().err


# ------------------------------------------------------------------ manifests


def test_defaults_of_other_types_of_step_are_the_servers_and_not_the_users():
    body = manifest()
    for step in body["spec"]["lean"]["steps"]:
        for key, value in {"epochs": "1", "protectFirst": 1, "temperature": "1"}.items():
            step.setdefault(key, value)
    body["spec"]["lean"]["steps"][2] |= {"ratio": "0.5"}
    _, issues = accept(body)
    assert [issue.field for issue in issues if issue.field.endswith("ratio")] == ["spec.lean.steps[2].ratio"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"store": {"uri": "s3://bucket/x"}}, "spec.store.uri"),
        ({"store": {"uri": "pvc://claim/../x"}}, "spec.store.uri"),
        ({"large": {"source": {"uri": "file:../secret"}}}, "spec.large.source.uri"),
        ({"large": {"source": {"uri": "file:/data/x"}}}, "spec.large.source.uri"),
        ({"serving": {"lean": {"minReplicas": 0}}}, "spec.serving.lean.minReplicas"),
        ({"serving": {"large": {"minReplicas": 3, "maxReplicas": 2}}}, "spec.serving.large.maxReplicas"),
        ({"serving": {"overrides": {"pod": {}}}}, "spec.serving.overrides.pod"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_by_its_field(spec, field):
    model, issues = accept(manifest(**spec))
    assert model is None and field in [issue.field for issue in issues]


def test_what_only_a_cluster_can_do_is_accepted_here():
    serving = {
        "large": {"minReplicas": 0, "maxReplicas": 4},
        "overrides": {"podTemplate": {"spec": {"nodeSelector": {"a": "b"}}}},
    }
    model, issues = accept(manifest(serving=serving, store={"uri": "pvc://shared/models"}))
    assert model is not None, issues


def test_overrides_and_replicas_reach_the_cluster():
    template = {
        "spec": {
            "nodeSelector": {"disk": "fast"},
            "containers": [{"name": "ray-worker", "env": [{"name": "X", "value": "1"}]}],
        }
    }
    serving = {"large": {"minReplicas": 0, "maxReplicas": 4}, "overrides": {"podTemplate": template}}
    world = World(manifest(serving=serving))
    world.settle()
    spec = world.objects[("RayService", "lm-spam-filter")]["spec"]
    group = spec["rayClusterConfig"]["workerGroupSpecs"][0]
    container = group["template"]["spec"]["containers"][0]
    assert group["template"]["spec"]["nodeSelector"] == {"disk": "fast"}
    assert {"name": "X", "value": "1"} in container["env"] and len(container["env"]) > 5
    large = json.loads(spec["serveConfigV2"])["applications"][0]["deployments"][0]
    assert (
        large["autoscaling_config"]["min_replicas"] == 0 and large["autoscaling_config"]["max_replicas"] == 4
    )
    assert list(large["ray_actor_options"]["resources"]) == [group["groupName"]]


def test_every_pod_is_nobody_special():
    world = World(manifest())
    pods = []
    for _ in range(60):
        world.reconcile()
        pods += [item["spec"]["template"]["spec"] for key, item in world.objects.items() if key[0] == "Job"]
        world.play()
    config = world.objects[("RayService", "lm-spam-filter")]["spec"]["rayClusterConfig"]
    pods += [
        config["headGroupSpec"]["template"]["spec"],
        *(g["template"]["spec"] for g in config["workerGroupSpecs"]),
    ]
    assert len(pods) >= 6
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True and "hostNetwork" not in pod
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
            assert "memory" in container["resources"]["limits"]
    assert [pod["automountServiceAccountToken"] for pod in pods].count(
        True
    ) == 1  # the head's: Ray's autoscaler


def test_merging_by_name():
    base = {"containers": [{"name": "a", "x": 1}, {"name": "b"}], "k": {"p": 1}}
    over = {"containers": [{"name": "a", "y": 2}, {"name": "c"}], "k": {"q": 2}}
    assert merged(base, over) == {
        "containers": [{"name": "a", "x": 1, "y": 2}, {"name": "b"}, {"name": "c"}], "k": {"p": 1, "q": 2},
    }  # fmt: skip
    assert base["containers"][0] == {"name": "a", "x": 1}


def test_covers_sees_changes_and_forgives_defaults():
    assert covers({"a": 1, "default": 2}, {"a": 1}) and covers({}, {"a": {}, "b": []})
    assert (
        not covers({"a": [1, 2]}, {"a": [1]}) and not covers({"a": 2}, {"a": 1}) and not covers({}, {"a": 0})
    )


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("pod", "reason", "word"),
    [
        (PodSeen("p", "u", "Pending", waiting=("ImagePullBackOff", "no such")), "ImagePull", "image"),
        (PodSeen("p", "u", "Pending", unschedulable="0/1 nodes: Insufficient cpu"), "Unschedulable", "lower spec.x"),
        (
            PodSeen("p", "u", "Pending", unschedulable="0/1 nodes: pod has unbound immediate PersistentVolumeClaims"),
            "VolumePending", "default storage class",
        ),
        (PodSeen("p", "u", "Pending", waiting=("CreateContainerConfigError", "secret")), "ContainerConfig", "secret"),
        (PodSeen("p", "u", "Running", waiting=("CrashLoopBackOff", ""), ended=("OOMKilled", 137, ""), limit="1Gi"), "Crashing", "1Gi"),
    ],
)  # fmt: skip
def test_what_keeps_a_pod_is_said_with_what_to_do(pod, reason, word):
    found = pod_trouble(pod, "prove", "spec.x")
    assert found is not None and found.reason == reason and word in found.message
    assert pod_trouble(PodSeen("p", "u", "Running"), "prove", "spec.x") is None


def test_missing_inputs_are_named_with_the_command_that_makes_them():
    where = Inputs("support-inputs", None, ("data/sms.tsv",))
    digest, words = digest_inputs(None, where, "ml")
    assert (
        digest is None
        and "kubectl -n ml create configmap support-inputs --from-file=sms.tsv=data/sms.tsv" in words
    )
    assert "has no key sms.tsv" in digest_inputs({"data": {"x": ""}}, where, "ml")[1]
    one, two = (digest_inputs({"data": {"sms.tsv": text}}, where, "ml")[0] for text in "ab")
    assert one and two and one != two


# ------------------------------------------------------------------ rights


def test_rules_name_kinds_that_are_used_and_no_wildcards():
    plurals = {kind.plural for kind in KINDS.values()} | {"leanmodels/status", "pods/log"}
    for rule in rbac.namespace_rules():
        assert set(rule["resources"]) <= plurals and "*" not in json.dumps(rule)
    secrets = [rule["verbs"] for rule in rbac.namespace_rules() if rule["resources"] == ["secrets"]]
    assert secrets == [["get", "create"]]
