"""The whole Job against engines with known answers: verdicts, figures, resuming, exit codes, the page."""

import contextlib
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from evaluation_double import TOKEN, Double, Reply
from test_evaluation_report import Elements

from leanmodel_api.progress import parse
from leanmodel_api.report import ProveReport
from leanmodel_api.routing_policy import RoutingEvaluation, RoutingPolicy
from leanmodel_evaluation.__main__ import main

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)> \u202e\"'&amp; {braces}"
ROWS = 1000


def write_data(folder: Path, rows: int = ROWS) -> dict[str, str]:
    """Write rows of two classes, one of three is spam, and return the truth by message."""
    generator = random.Random(5)
    truth = {}
    lines = []
    for index in range(rows):
        label = "spam" if index % 3 == 0 else "ham"
        words = ["win", "cash", "now"] if label == "spam" else ["see", "you", "soon"]
        # One word of four comes from the other class, so that the text model is good and not perfect.
        mixed = [word if generator.random() < 0.75 else generator.choice(["win", "see"]) for word in words]
        message = f"{HOSTILE if index % 40 == 0 else ''} {' '.join(mixed)} number {index}".strip()
        truth[message] = label
        lines.append(json.dumps({"msg": message, "label": label}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return truth


def one_in_eight(message: str) -> bool:
    """Nothing in the words tells these messages apart."""
    return int(hashlib.sha256(message.encode()).hexdigest(), 16) % 8 == 0


def engine(
    truth: dict[str, str], name: str, wrong_sure: float, wrong_unsure: float, seconds: float = 0.0,
    is_hard: Callable[[str], bool] = one_in_eight,
) -> Callable[[str], Reply]:  # fmt: skip
    """Return a model that is unsure of some messages, and wrong at the rates given."""

    def answer(prompt: str) -> Reply:
        message = prompt.removeprefix("SMS: ").rpartition("\nLabel:")[0]
        generator = random.Random(name + message)
        hard = is_hard(message)
        wrong = generator.random() < (wrong_unsure if hard else wrong_sure)
        label = truth[message]
        given = {"ham": "spam", "spam": "ham"}[label] if wrong else label
        return Reply(
            given, -0.3 - generator.random() if hard else -0.01 * generator.random(), seconds=seconds
        )

    return answer


def plan(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "demo",
        "large": {"name": "large-1", "artifact": "sha256:" + "a" * 64, "bytes": 1000},
        "lean": {"name": "lean-1", "artifact": "sha256:" + "b" * 64, "bytes": 300},
        "dataSet": {
            "name": "sms", "source": {"uri": "file:rows.jsonl"}, "prompt": {"text": "SMS: {msg}\nLabel:"},
            "answer": "{label}", "choices": ["ham", "spam"],
            "split": {"train": "0.2", "validation": "0.1", "fit": "0.15", "certify": "0.35", "report": "0.1", "test": "0.1"},
        },
        "evaluation": {
            "sampling": {"maxTokens": 4}, "concurrency": 4, "throughputRequests": 24,
            "gates": [{"metric": "LeanQualityRetained", "min": "0.7"}, {"metric": "SizeRatio", "max": "0.35"}],
        },
        "routing": {"promise": {"retain": "0.9", "risk": "0.1"}},
        "engine": "double 1.0, float32",
        "steps": [{"type": "Fetch", "bytes": 1000, "figures": {"validationAccuracy": 0.5, "influence.0": 0.3}},
                  {"type": "Quantize", "detail": "W8A8 <b>", "bytes": 300, "figures": {"validationAccuracy": 0.9}}],
    }  # fmt: skip
    return {**found, **changes}


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Bench:
    """A folder with plan, token, data and store, and a way to start the Job as a process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.truth = write_data(folder)
        (folder / "token").write_text(TOKEN + "\n")

    def command(self, url: str, content: dict[str, Any], *more: str) -> list[str]:
        (self.folder / "plan.json").write_text(json.dumps({**content, "baseDir": str(self.folder)}))
        paths = {
            "--plan": "plan.json",
            "--store": "store",
            "--token-file": "token",
            "--result": "report.json",
            "--html": "report.html",
        }
        named = [part for key, value in paths.items() for part in (key, str(self.folder / value))]
        return [sys.executable, "-m", "leanmodel_evaluation", "--endpoint", url, *named, *more]

    def run(self, double: Double, content: dict[str, Any], *more: str) -> Done:
        """Run the Job's entry point here: a process of its own spends most of its time on imports."""
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = main(self.command(double.url, content, *more)[3:])
        return Done(code, out.getvalue(), errors.getvalue())

    def report(self) -> ProveReport:
        return ProveReport.model_validate_json((self.folder / "report.json").read_bytes())

    def page(self) -> str:
        return (self.folder / "report.html").read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def models(
    bench: Bench, lean_sure: float = 0.0, lean_unsure: float = 0.95, lean_seconds: float = 0.001
) -> dict[str, Any]:
    return {
        "large-1": engine(bench.truth, "large", 0.01, 0.02, 0.02),
        "lean-1": engine(bench.truth, "lean", lean_sure, lean_unsure, lean_seconds),
    }


def test_a_cascade_is_proven_from_end_to_end(bench: Bench) -> None:
    prices = {"largePrice": {"usdPerHour": "2"}, "leanPrice": {"usdPerHour": "0.5"}}
    with Double(models(bench), metrics={"large-1": "process_resident_memory_bytes 900\n"}) as double:
        done = bench.run(double, plan(**prices))
        assert done.returncode == 0, done.stderr
        asked = [double.asked_of(name) for name in ("large-1", "lean-1")]
    report = bench.report()
    part = sum(report.parts[name] for name in ("fit", "certify", "report", "test"))
    assert asked == [part + 24 + 4] * 2
    assert report.verdict == "Routed", report.reason
    assert report.policy.kind == "cascade" and report.policy.certificate.certified
    by = {(model.name, model.part): model for model in report.models}
    assert set(name for name, _ in by) == {
        "large",
        "lean",
        "pair",
        "random",
        "oracle",
        "always-ham",
        "tfidf-logreg",
    }
    for part_name in ("report", "test"):
        value = {
            name: by[name, part_name].figures["BalancedAccuracy"].value
            for name in ("large", "lean", "pair", "oracle", "random")
        }
        assert value["lean"] < value["pair"] <= value["oracle"]
        assert value["random"] < value["pair"]
    assert by["always-ham", "report"].figures["BalancedAccuracy"].value == 0.5
    assert 0 < (by["pair", "report"].large_share or 0) < 0.5
    # What the Decider does is what the policy's own evaluation says.
    assert by["pair", "report"].figures["BalancedAccuracy"].value == pytest.approx(report.evaluation.quality)
    assert by["pair", "report"].large_share == pytest.approx(report.evaluation.large_share)
    assert report.size_ratio.value == 0.3
    assert report.throughput_ratio.value > 1  # 20 ms against 1, on a machine that may be busy
    assert report.throughput_ratio.low <= report.throughput_ratio.value <= report.throughput_ratio.high
    assert (
        report.saving is not None and 0 < report.saving.low <= report.saving.value <= report.saving.high < 1
    )
    assert report.promise_held_on_test is not None
    assert report.speed["large"].memory_bytes == 900 and report.speed["lean"].memory_bytes is None
    scope = report.policy.scope
    assert (scope.endpoint, scope.temperature, scope.max_tokens, scope.concurrency) == (
        "completions",
        0,
        4,
        4,
    )
    assert (
        scope.prompt is not None
        and scope.prompt.prefixes == ("SMS: ",)
        and scope.prompt.suffixes == ("\nLabel:",)
    )
    assert (scope.metric, scope.aggregate) == ("BalancedAccuracy", "balanced")
    assert scope.lean_revision == "sha256:" + "b" * 64
    progress = [line for line in map(parse, done.stdout.splitlines()) if line is not None]
    finished = [line.step for line in progress if line.state == "finished"]
    assert finished == ["ask-large", "ask-lean", "speed", "calibrate", "report"]
    assert progress[-1].percent == 100
    assert TOKEN not in bench.page() + (bench.folder / "report.json").read_text() + done.stdout + done.stderr


def has_cash(message: str) -> bool:
    return "cash" in message


@pytest.mark.parametrize(
    ("strategy", "kinds", "considered"),
    [
        ("Predictive", {"predictive"}, {"predictive"}),
        ("Auto", {"predictive", "cascade", "combined"}, {"fixed", "predictive", "cascade", "combined"}),
    ],
)
def test_each_strategy_of_the_manifest_is_proven(
    bench: Bench, strategy: str, kinds: set[str], considered: set[str]
) -> None:
    """The word cash shows what the lean model cannot do, so the prompt decides as well as the answer."""
    both = {
        "large-1": engine(bench.truth, "large", 0.01, 0.02, is_hard=has_cash),
        "lean-1": engine(bench.truth, "lean", 0.0, 0.95, is_hard=has_cash),
    }
    tokens = {"inputUSDPerMillionTokens": "10", "outputUSDPerMillionTokens": "10"}
    cheap = {"inputUSDPerMillionTokens": "8", "outputUSDPerMillionTokens": "8"}
    routing = {**plan()["routing"], "strategy": strategy}
    gates = {**plan()["evaluation"], "gates": []}
    parts = {
        "train": "0.05", "validation": "0.05", "fit": "0.46", "certify": "0.28", "report": "0.1", "test": "0.06",
    }  # fmt: skip
    proof = plan(
        evaluation=gates, routing=routing, largePrice=tokens, leanPrice=cheap,
        dataSet={**plan()["dataSet"], "split": parts},
    )  # fmt: skip
    with Double(both) as double:
        done = bench.run(double, proof)
    assert done.returncode == 0, done.stderr
    report = bench.report()
    policy = report.policy
    assert report.verdict == "Routed", report.reason
    assert isinstance(policy, RoutingPolicy) and policy.kind in kinds and policy.certificate.certified
    assert {item.strategy for item in policy.considered} == considered
    assert isinstance(report.evaluation, RoutingEvaluation)
    if policy.kind != "cascade":
        assert report.evaluation.lean_calls < 1
    # What the Decider does is what the policy's own evaluation says, in quality, in calls and in money.
    pair = next(model for model in report.models if (model.name, model.part) == ("pair", "report"))
    assert pair.figures["BalancedAccuracy"].value == pytest.approx(report.evaluation.quality)
    assert pair.large_share == pytest.approx(report.evaluation.large_share)
    evaluation = report.evaluation
    assert report.saving is not None and evaluation.cost is not None and evaluation.cost_all_large is not None
    assert report.saving.value == pytest.approx(1 - evaluation.cost / evaluation.cost_all_large)
    assert f"({policy.kind})" in Elements(bench.page()).text


def test_the_page_shows_hostile_prompts_as_text_and_loads_nothing(bench: Bench) -> None:
    with Double(models(bench, lean_sure=0.2)) as double:
        assert bench.run(double, plan()).returncode == 0
    page = bench.page()
    found = Elements(page)
    assert any("<script>" in item.prompt for item in bench.report().examples)
    assert "script" not in found.names and "img" not in found.names
    assert "<script>alert('x')</script>" in found.text
    assert "\u202e" not in page
    assert "W8A8 <b>" in found.text
    assert not [value for name, value in found.attributes if name in ("src", "href", "onerror", "onload")]
    assert "http://" not in page and "https://" not in page and "url(" not in page and "@import" not in page
    for words in (
        "Gates",
        "Quality",
        "certificate",
        "Speed",
        "Steps",
        "differ",
        "How to read this",
        "tfidf-logreg",
        "always-ham",
    ):
        assert words in found.text, words


def test_a_failed_gate_is_a_verdict_and_not_a_failure(bench: Bench) -> None:
    gates = [{"metric": "LeanQuality", "min": "0.999"}, {"metric": "SizeRatio", "max": "0.35"}]
    with Double(models(bench)) as double:
        done = bench.run(double, plan(evaluation={**plan()["evaluation"], "gates": gates}))
    assert done.returncode == 0
    report = bench.report()
    assert report.verdict == "GateFailed"
    assert [gate.passed for gate in report.gates] == [False, True]
    assert "LeanQuality" in report.reason and "0.999" in report.reason


def test_a_lean_model_that_is_better_takes_all(bench: Bench) -> None:
    both = {
        "large-1": engine(bench.truth, "large", 0.15, 0.15),
        "lean-1": engine(bench.truth, "lean", 0.0, 0.0),
    }
    with Double(both) as double:
        assert bench.run(double, plan()).returncode == 0
    assert bench.report().verdict == "LeanTakesAll"
    assert bench.report().policy.certificate.outcome == "lean-at-least-as-good"


def test_a_lean_model_that_guesses_leaves_all_to_the_large_one(bench: Bench) -> None:
    tokens = {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "1"}
    prices = {"largePrice": tokens, "leanPrice": {**tokens, "outputUSDPerMillionTokens": "0.5"}}
    with Double(models(bench, lean_sure=0.5, lean_unsure=0.5)) as double:
        done = bench.run(double, plan(evaluation={**plan()["evaluation"], "gates": []}, **prices))
    assert done.returncode == 0
    report = bench.report()
    assert report.verdict == "LargeOnly", report.reason
    assert report.quality_retained.value == 1
    assert any("TF-IDF" in words for words in report.environment["warnings"])


def test_without_references_quality_is_agreement(bench: Bench) -> None:
    data = {**plan()["dataSet"], "prompt": {"system": "Be brief.", "user": "SMS: {msg}\nLabel:"}}
    del data["answer"], data["choices"]
    with Double(models(bench)) as double:
        done = bench.run(double, plan(dataSet=data))
        assert done.returncode == 0, done.stderr
        assert all("messages" in body for body in double.bodies)
    report = bench.report()
    assert report.metric == "Agreement"
    large = next(model for model in report.models if model.name == "large" and model.part == "report")
    assert large.figures["Agreement"].value == 1
    assert report.policy.scope.endpoint == "chat"


def test_perplexity_is_measured_for_a_gate_on_it(bench: Bench) -> None:
    gates = [{"metric": "Perplexity", "max": "3"}]
    data = {**plan()["dataSet"], "maxRows": 300}
    with Double(models(bench)) as double:
        done = bench.run(double, plan(dataSet=data, evaluation={**plan()["evaluation"], "gates": gates}))
    assert done.returncode == 0, done.stderr
    assert bench.report().gates[0].metric == "Perplexity"


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_started_again_it_asks_nothing_twice(bench: Bench) -> None:
    content = plan()
    with Double(models(bench), hold_after=150) as double:
        command = bench.command(double.url, content)
        for stop in (150, 800):
            # The double holds back answers past a point; what was answered by then must never be asked again.
            double.hold_after, double.gate = stop, type(double.gate)()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_until(lambda stop=stop: sum(double.asked.values()) >= stop + 4)
                wait_until(lambda stop=stop: sum(double.answered.values()) >= stop - 12)
                kept = sum(
                    1 for book in (bench.folder / "store" / "answers").glob("*.jsonl") for _ in book.open()
                )
            finally:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            double.gate.set()
            assert kept >= stop - 12 - 4 * 2
            assert not (bench.folder / "report.json").exists()
        double.hold_after = None
        done = bench.run(double, content)
        assert done.returncode == 0, done.stderr
        part = sum(bench.report().parts[name] for name in ("fit", "certify", "report", "test"))
        asks = {key: count for key, count in double.asked.items()}
        quality = [count for key, count in asks.items() if count > 1]
        # At most the four requests under way at each of two kills, and the speed's own prompts, come twice.
        assert len(quality) <= 2 * 4
        assert sum(asks.values()) <= 2 * part + 2 * (24 + 4) + 2 * 4
        first = bench.report()

        # The same proof again: found, and nothing is asked at all.
        before = sum(double.asked.values())
        assert bench.run(double, content).returncode == 0
        assert sum(double.asked.values()) == before
        assert bench.report() == first

        # Another lean revision: the large model's answers are not asked for again, its speed is.
        large = double.asked_of("large-1")
        double.models["lean-2"] = engine(bench.truth, "lean two", 0.0, 0.4)
        other = {"name": "lean-2", "artifact": "sha256:" + "c" * 64, "bytes": 250}
        assert bench.run(double, plan(lean=other)).returncode == 0
        assert double.asked_of("large-1") == large + 24 + 4
        assert bench.report().environment["looks"] == 2


def test_measuring_again_changes_nothing_but_speed(bench: Bench) -> None:
    with Double(models(bench)) as double:
        assert bench.run(double, plan()).returncode == 0
        first = bench.report()
        assert bench.run(double, plan(), "--fresh").returncode == 0
    second = bench.report()
    assert first.speed != second.speed
    assert first.models == second.models
    assert first.policy == second.policy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 3, "lean": None}, "--plan"),
        ({"evaluation": {"sampling": {"temperature": "0.7"}}}, "spec.evaluation.sampling.temperature"),
        (
            {"evaluation": {"gates": [{"metric": "Saving", "min": "0.1"}], "throughputRequests": 10}},
            "gates[0].metric",
        ),
        (
            {"evaluation": {"gates": [{"metric": "MemoryRatio", "max": "1"}], "throughputRequests": 10}},
            "gates[0].metric",
        ),
    ],
)
def test_bad_input_is_exit_code_2(bench: Bench, changes: dict[str, Any], words: str) -> None:
    data = {**plan()["dataSet"], "maxRows": 300}
    with Double(models(bench)) as double:
        done = bench.run(double, plan(**{"dataSet": data, **changes}))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (bench.folder / "report.json").exists()


def test_a_wrong_token_is_exit_code_2_and_stays_secret(bench: Bench) -> None:
    (bench.folder / "token").write_text("a-wrong-secret")
    with Double(models(bench)) as double:
        done = bench.run(double, plan())
    assert done.returncode == 2
    assert "--token-file" in done.stderr and "a-wrong-secret" not in done.stderr + done.stdout


def test_a_missing_token_file_is_exit_code_2(bench: Bench) -> None:
    (bench.folder / "token").unlink()
    with Double(models(bench)) as double:
        done = bench.run(double, plan())
    assert done.returncode == 2 and "--token-file" in done.stderr


def test_ctrl_c_and_sigterm_leave_what_was_answered(bench: Bench) -> None:
    with Double(models(bench), hold_after=40) as double:
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            double.hold_after, double.gate = sum(double.asked.values()) + 40, type(double.gate)()
            before = sum(double.asked.values())
            process = subprocess.Popen(
                bench.command(double.url, plan()),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                # As at a terminal: what runs in the background has inherited that it is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            wait_until(lambda before=before: sum(double.asked.values()) >= before + 44)
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
            double.gate.set()
            assert process.returncode == code
            assert "Traceback" not in errors, errors
