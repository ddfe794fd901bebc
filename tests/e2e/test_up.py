"""From a manifest to an answering endpoint, as a user does it: small data, real weights, engine and requests."""

from __future__ import annotations

import json
import random
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, processes_of, wait_until
from openai import NotFoundError, OpenAI

from leanmodel_operator.probe import total

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
MESSAGES: list[Any] = [
    {"role": "system", "content": "Spam or ham?"},
    {"role": "user", "content": "You won a prize! Call 09061701461 now"},
]


@pytest.fixture(scope="module")
def up(cli: Cli, small: Callable[..., Path], free_port: Callable[[], int]) -> Iterator[dict[str, Any]]:
    """Bring the small LeanModel up and hand out its status."""
    path, port = small("tiny"), free_port()
    done = cli.run("up", "-f", str(path), "--detach", "--port", str(port), timeout=1400)
    assert done.returncode in (0, 4), done.stdout + done.stderr
    status = json.loads(cli.run("status", "tiny", "-o", "json").stdout)
    yield {"resource": status, "done": done, "path": path, "port": port}
    assert cli.run("down", "tiny").returncode == 0
    wait_until(lambda: not processes_of(cli.home), 30, "the end of all processes")


def test_the_status_says_what_was_won(up: dict[str, Any]) -> None:
    status = up["resource"]["status"]
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert conditions["Serving"] == "True" and conditions["Compressed"] == "True"
    assert conditions["Ready"] == ("True" if up["done"].returncode == 0 else "False")
    report = status["report"]
    assert 0.1 < float(report["sizeRatio"]) <= 0.35
    assert float(report["throughputRatio"]) > 1
    for figure in ("sizeRatio", "throughputRatio", "qualityRetained"):
        interval = report[f"{figure}Interval"]
        assert float(interval["low"]) <= float(report[figure]) <= float(interval["high"])
    assert "the endpoint is up" in up["done"].stdout


def test_an_openai_client_plain_and_streaming(up: dict[str, Any]) -> None:
    client = OpenAI(base_url=up["resource"]["status"]["url"], api_key="none", max_retries=0)
    raw = client.chat.completions.with_raw_response.create(
        model="tiny", messages=MESSAGES, max_tokens=4, temperature=0
    )
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.model.startswith(("lean-", "large-"))
    assert raw.headers["x-leanmodel-route"] in ("lean", "large", "escalated")
    assert raw.headers["x-leanmodel-request-id"]
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=4, temperature=0, stream=True
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert [model.id for model in client.models.list()] == ["tiny"]
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model="other", messages=MESSAGES)


def test_the_report_is_one_page_of_its_own(cli: Cli, up: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert cli.run("report", "tiny", "-o", "html", "--out", str(page)).returncode == 0
    text = page.read_text()
    assert (
        "<html" in text
        and 'src="http' not in text
        and 'href="http' not in text.replace('href="https://arxiv.org', "")
    )
    document = json.loads(cli.run("report", "tiny", "-o", "json").stdout)
    assert {"large", "lean", "pair"} <= {model["name"] for model in document["models"]}


def test_a_second_up_of_the_same_manifest_is_told(cli: Cli, up: dict[str, Any]) -> None:
    again = cli.run("up", "-f", str(up["path"]), "--port", str(up["port"]))
    assert again.returncode == 2 and "is up already" in again.stderr
    assert (
        cli.run("up", "-f", str(up["path"]), "--detach", "--port", str(up["port"])).returncode
        == up["done"].returncode
    )


def test_a_port_that_is_taken_is_refused_before_any_work(cli: Cli, small: Callable[..., Path]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        refused = cli.run("up", "-f", str(small("porty")), "--port", str(holder.getsockname()[1]))
    assert refused.returncode == 3
    assert "spec.serving.router.port" in refused.stderr and "is taken" in refused.stderr


def test_a_failing_gate_leaves_the_large_model_serving(
    cli: Cli, up: dict[str, Any], small: Callable[..., Path], free_port: Callable[[], int]
) -> None:
    def impossible(spec: dict[str, Any]) -> None:
        spec["evaluation"]["gates"] = [{"metric": "SizeRatio", "max": "0.01"}]

    path, port = small("gated", impossible), free_port()
    done = cli.run("up", "-f", str(path), "--detach", "--port", str(port), timeout=1200)
    try:
        assert done.returncode == 4, done.stdout + done.stderr
        assert "SizeRatio" in done.stderr
        resource = json.loads(cli.run("status", "gated", "-o", "json").stdout)
        conditions = {condition["type"]: condition for condition in resource["status"]["conditions"]}
        assert conditions["Serving"]["status"] == "True"
        assert conditions["Proven"] | {"message": ""} == conditions["Proven"] | {
            "status": "False",
            "reason": "GateFailed",
            "message": "",
        }
        client = OpenAI(base_url=resource["status"]["url"], api_key="none")
        raw = client.chat.completions.with_raw_response.create(
            model="gated", messages=MESSAGES, max_tokens=4, temperature=0
        )
        assert raw.headers["x-leanmodel-route"] == "large"
    finally:
        assert cli.run("down", "gated").returncode == 0


def test_ctrl_c_leaves_no_process_behind(
    cli: Cli, small: Callable[..., Path], free_port: Callable[[], int], tmp_path: Path
) -> None:
    def other(spec: dict[str, Any]) -> None:
        spec["seed"] = 7  # other work than the store holds

    path = small("stopped", other)
    before = set(processes_of(cli.home))
    for moment in ("compress-large", "serve-large", "compress-lean"):
        log = tmp_path / f"{moment}.log"
        process = cli.start("up", "-f", str(path), "--port", str(free_port()), log=log)
        wait_until(lambda log=log, moment=moment: moment in log.read_text(errors="replace"), 600, moment)
        wait_until(lambda delay=random.random: delay() < 0.2, 30, "a random moment")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=90) == 130, log.read_text()
        wait_until(
            lambda: set(processes_of(cli.home)) <= before, 30, f"the end of all processes after {moment}"
        )


def test_a_killed_command_takes_its_run_with_it(
    cli: Cli, small: Callable[..., Path], free_port: Callable[[], int], tmp_path: Path
) -> None:
    before = set(processes_of(cli.home))
    process = cli.start(
        "up", "-f", str(small("orphaned")), "--port", str(free_port()), log=tmp_path / "up.log"
    )
    wait_until(lambda: len(set(processes_of(cli.home)) - before) >= 2, 60, "the start")
    process.kill()
    process.wait()
    wait_until(lambda: set(processes_of(cli.home)) <= before, 60, "the end of all processes")


def test_metrics_add_up(cli: Cli, up: dict[str, Any]) -> None:
    """Requests by route are the requests that were sent; the saving is the counterfactual minus the cost."""

    def exposed(name: str) -> float:
        with urllib.request.urlopen(up["resource"]["status"]["metricsUrl"], timeout=10) as answer:
            return total(answer.read().decode().splitlines(), name) or 0.0

    client = OpenAI(base_url=up["resource"]["status"]["url"], api_key="none")
    before, spent = exposed("ray_leanmodel_requests_total"), 0.0
    cost_before = exposed("ray_leanmodel_cost_usd_total")
    for index in range(12):
        messages = [MESSAGES[0], {"role": "user", "content": f"Lunch at {index}?"}]
        raw = client.chat.completions.with_raw_response.create(
            model="tiny", messages=messages, max_tokens=4, temperature=0
        )
        spent += float(raw.headers["x-leanmodel-cost-usd"])
    wait_until(lambda: exposed("ray_leanmodel_requests_total") == before + 12, 60, "the count of 12 requests")
    cost = exposed("ray_leanmodel_cost_usd_total")
    assert cost - cost_before == pytest.approx(spent, abs=1e-7)
    saving = exposed("ray_leanmodel_counterfactual_cost_usd_total") - cost
    assert exposed("ray_leanmodel_saving_usd") == pytest.approx(saving, abs=1e-7)
    shown = "\n".join(cli.run("status", "tiny").stdout.splitlines())
    assert "metrics: " in shown and "endpoint: " in shown
