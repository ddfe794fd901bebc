"""The local runner's pieces: ports, processes, estimates, tables; no engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from leanmodel_api.errors import InputError, ManifestError, RefusedError
from leanmodel_api.manifest import load
from leanmodel_cli.display import Display
from leanmodel_cli.eta import STAGES, Timeline
from leanmodel_cli.jobs import describe_failure, inputs_key
from leanmodel_cli.main import main
from leanmodel_cli.ports import check_port
from leanmodel_cli.processes import Child
from leanmodel_cli.runs import Run, only_run, read_json, read_manifest, start_time, write_atomic
from leanmodel_cli.serve import ServeSide
from leanmodel_cli.survey import survey
from leanmodel_cli.table import stated
from leanmodel_cli.trial import trial
from leanmodel_operator import probe
from leanmodel_operator.jobs import large_plan

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"
MODEL = load(yaml.safe_load((QUICKSTART / "leanmodel.yaml").read_text()))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANMODEL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_taken_port_is_named() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(RefusedError, match=f"port {holder.getsockname()[1]} is taken"):
            check_port(holder.getsockname()[1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not YAML"),
        ("", "holds 0 documents"),
        ("a: 1\n---\nb: 2", "holds 2 documents"),
        ("[]", "a list"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError, match=words):
        read_manifest(path)


def test_validate_ends_with_the_exit_code_of_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "-f", str(QUICKSTART / "leanmodel.yaml")]) == 0
    assert "Prune, Distill, Quantize" in capsys.readouterr().out
    assert main(["validate", "-f", str(tmp_path / "missing.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_run_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "nobody"]) == 2
    assert "leanmodel up -f FILE" in capsys.readouterr().err
    with pytest.raises(InputError, match="there are 0 runs"):
        only_run(None, "default")


def test_a_supervisor_of_the_past_does_not_count() -> None:
    run = Run.of("x")
    assert run.supervisor() is None
    write_atomic(run.pid, json.dumps({"pid": os.getpid(), "started": start_time(os.getpid())}))
    assert run.supervisor() == os.getpid()
    write_atomic(run.pid, json.dumps({"pid": os.getpid(), "started": "1"}))
    assert run.supervisor() is None


def test_status_of_a_killed_run_is_not_shown_as_true(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.of("x")
    condition = {
        "type": "Serving",
        "status": "True",
        "reason": "Answering",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "",
    }
    write_atomic(run.resource, "{}")
    write_atomic(
        run.status,
        json.dumps({"metadata": {"name": "x"}, "status": {"phase": "Ready", "conditions": [condition]}}),
    )
    assert main(["status", "x", "-o", "json"]) == 0
    status = json.loads(capsys.readouterr().out)["status"]
    assert status["phase"] == "Stopped" and status["conditions"][0]["status"] == "False"


def test_half_written_json_is_read_as_none(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ')
    assert read_json(tmp_path / "x.json") is None


def test_a_child_s_lines_arrive_and_its_group_ends(tmp_path: Path) -> None:
    lines: list[str] = []
    script = "import subprocess,sys; p=subprocess.Popen(['sleep','600']); print(p.pid,flush=True); p.wait()"
    child = Child([sys.executable, "-c", script], tmp_path / "c.log", lines.append)
    deadline = time.monotonic() + 20
    while not lines:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.end(grace_seconds=5)
    assert child.poll() is not None and child.poll() != 0
    while (
        start_time(int(lines[0])) is not None
    ):  # killed with the group; whoever adopts an orphan reaps it a little later
        assert time.monotonic() < deadline + 20
        time.sleep(0.02)
    assert (tmp_path / "c.log").read_text().strip() == lines[0]


def test_a_job_that_was_killed_is_said_to_be_killed(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text("loading\nerror: spec.x: found 1; write 2\n")
    assert describe_failure("compress-large", -signal.SIGKILL, log).startswith(
        "compress-large was killed (SIGKILL)"
    )
    assert describe_failure("compress-large", 2, log) == "compress-large: spec.x: found 1; write 2"
    assert "ended with exit code 7" in describe_failure("prove", 7, tmp_path / "none.log")


def test_a_job_s_key_follows_its_files(tmp_path: Path) -> None:
    data = MODEL.spec.data_sets[0].model_copy(
        update={"source": MODEL.spec.data_sets[0].source.model_copy(update={"uri": "file:a.tsv"})}
    )
    plan = large_plan(MODEL, 2, str(tmp_path)).model_copy(update={"data_sets": [data]})
    (tmp_path / "a.tsv").write_text("one")
    first = inputs_key(plan, plan.data_sets, plan.base_dir)
    assert inputs_key(plan, plan.data_sets, plan.base_dir) == first
    (tmp_path / "a.tsv").write_text("two")
    assert inputs_key(plan, plan.data_sets, plan.base_dir) != first


def test_the_estimate_falls_as_stages_end_and_learns() -> None:
    timeline = Timeline(MODEL, size=survey(MODEL, str(QUICKSTART)))
    assert timeline.size.rows == 5160 and len(timeline.size.answers) == 2
    before = timeline.remaining(0.0)
    timeline.learn("compress-large", 400.0)
    assert timeline.remaining(0.0) != before
    # A machine that was half as fast in one stage is so in the others.
    slower = Timeline(MODEL, size=timeline.size)
    slower.learn("compress-large", 775.0)
    assert slower.pass_seconds == pytest.approx(2 * timeline.pass_seconds, rel=0.01)
    for stage in STAGES[1:]:
        last = timeline.remaining(0.0)
        timeline.learn(stage, 10.0)
        assert timeline.remaining(0.0) < last
    assert timeline.remaining(0.0) == 0.0
    again = Timeline(MODEL, history={stage: 10.0 for stage in STAGES})
    again.running = ("compress-large", 0.0, 4.0)
    assert again.remaining(3.0) == pytest.approx(4.0 + 40.0)


def test_a_request_to_try_comes_from_the_data() -> None:
    system, user = json.loads(trial(MODEL, str(QUICKSTART)))["messages"]
    assert system == {"role": "system", "content": "Spam or ham?"}
    assert user["content"].startswith("Go until jurong point")


@pytest.mark.parametrize(
    ("eta", "words"),
    [(3725, "about 62m05s left"), (60, "about 1m00s left"), (42, "under a minute left"), (None, "")],
)
def test_what_is_left_is_said_as_finely_as_it_is_known(capsys, eta, words):
    progress = {"step": "prove: speed", "percent": 94, "etaSeconds": eta}
    Display().update({"status": {"conditions": [], "progress": progress}})
    said = capsys.readouterr().err.strip()
    assert said.endswith(f"94%  prove: speed  {words}".strip())


@pytest.mark.parametrize(
    ("written", "told"), [("0.98", "98%"), ("0.985", "98.5%"), ("0.9999", "99.99%"), ("0.07", "7%")]
)
def test_a_promise_is_told_as_it_was_written(written: str, told: str) -> None:
    assert stated(float(written)) == told
    assert stated(1 - (1 - float(written))) == told


def test_a_model_that_is_up_and_does_not_answer_is_told_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = ServeSide(MODEL, Run.of("spam-filter"), tmp_path / "store", 8000, 1)
    side.host = SimpleNamespace(poll=lambda: None)  # type: ignore[assignment]
    side._served = (SimpleNamespace(revision=SimpleNamespace(name="large-1"), role="Large"),)  # type: ignore[assignment]
    ready = {"ready": True}
    side.run.serve.mkdir(parents=True)
    status = {"applications": {"router": ready, "large-1": ready}}
    (side.run.serve / "status.json").write_text(json.dumps(status))
    said = ["/v1/chat/completions: 500 out of memory", ""]
    monkeypatch.setattr(probe, "refusal", lambda *_: said.pop(0))
    seen = side.observe()
    assert (seen.answering, seen.silent) == (
        frozenset(),
        "large-1: /v1/chat/completions: 500 out of memory",
    )
    seen = side.observe()
    assert (seen.answering, seen.silent) == (frozenset({"Large"}), "")
    assert side.observe().answering == {"Large"}, "it is not asked again while it is up"
