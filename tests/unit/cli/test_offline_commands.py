"""calibrate and evaluate-policy: what they write and what they tell people."""

from __future__ import annotations

import json

import numpy as np
import pytest

from leanmodel_cli.main import main
from leanmodel_routing import read_policy

EXPECTED = {"large_share", "quality", "cost", "cpt50", "cpt80", "apgr", "aiq", "certificate", "baselines"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """2,000 records whose log-probs tell; a rare group; answers that differ where the lean one is wrong."""
    rng = np.random.default_rng(0)
    lines = []
    for index in range(2000):
        sure = rng.random()
        lean, large = float(rng.random() < 0.4 + 0.6 * sure), float(rng.random() < 0.95)
        lines.append(
            {
                "prompt": f"question {index}",
                "lean_quality": lean,
                "large_quality": large,
                "lean_answer": f"answer {index}",
                "large_answer": f"answer {index}" if lean else "other",
                "lean_logprobs": [float(np.log(0.05 + 0.9 * sure)), -0.1],
                "lean_cost": 0.001,
                "large_cost": 0.01,
                "lean_latency": 0.2,
                "large_latency": 1.0,
                "group": "faq" if index % 100 else "rare",
            }
        )
    path = tmp_path_factory.mktemp("offline") / "R.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_calibrate_writes_a_policy_that_evaluate_policy_reads(records, tmp_path, capsys):
    out = tmp_path / "policy.json"
    assert main(["calibrate", "--records", str(records), "--retain", "0.9", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    policy, document = read_policy(out), json.loads(out.read_text())
    assert set(document) >= EXPECTED | {"policy", "lean_calls"} and policy.version == "2"
    bound = policy.certificate.label_free
    assert f"without labels: at most {bound.upper:.2%}" in told and str(bound.shadow_accepted) in told
    assert f"{policy.kind} (chosen)" in told and "is seen after about" in told
    interval = document["intervals"]["apgr"]
    assert f"[{interval['low']:.4f}, {interval['high']:.4f}]" in told
    assert main(["evaluate-policy", "--policy", str(out), "--records", str(records)]) == 0
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)) >= EXPECTED
    assert "very records" in captured.err


def test_strategies_groups_and_a_price_of_latency(records, tmp_path, capsys):
    out = tmp_path / "policy.json"
    arguments = [
        "calibrate",
        "--records",
        str(records),
        "--retain",
        "0.9",
        "--strategy",
        "cascade",
        "--per-group",
    ]
    assert main([*arguments, "--usd-per-second", "0.001", "--out", str(out)]) == 0
    policy, told = read_policy(out), capsys.readouterr().out
    assert [item.strategy for item in policy.considered] == ["cascade"] and policy.usd_per_second == 0.001
    assert policy.groups["faq"].certificate.certified and policy.groups["rare"].kind == "all-large"
    assert "this policy (by group)" in told
    assert f"at least {policy.groups['rare'].certificate.needed} more" in told


def test_a_second_promise_is_certified_beside_the_first(records, tmp_path, capsys):
    out = tmp_path / "policy.json"
    assert (
        main(
            [
                "calibrate",
                "--records",
                str(records),
                "--retain",
                "0.9",
                "--under-pressure",
                "0.5",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    told = capsys.readouterr().out
    assert "under pressure: at least 50% of the large model's mean quality" in told
    assert "for both promises together" in told
    assert json.loads(out.read_text())["policy"]["under_pressure"]["certificate"]["retain"] == 0.5
    assert main(["calibrate", "--records", str(records), "--retain", "0.9", "--under-pressure", "0.9"]) != 0
    assert "below the first promise, 0.9" in capsys.readouterr().err


def test_a_price_that_is_none_is_refused(records, capsys):
    with pytest.raises(SystemExit):
        main(["calibrate", "--records", str(records), "--usd-per-second", "-1"])
    assert "expected 0 or more" in capsys.readouterr().err
