"""From the classifiers' example to answered labels: a real MiniLM, a student of half its layers, little data."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_support import Cli, processes_of, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart"
ROWS = 600


def write(folder: Path) -> Path:
    """Write the example with few rows and short trainings."""
    lines = (EXAMPLE / "data" / "sms.tsv").read_text().splitlines()
    spam = [line for line in lines if line.startswith("spam\t")][: ROWS // 2]
    ham = [line for line in lines if line.startswith("ham\t")][: ROWS - len(spam)]
    (folder / "sms.tsv").write_text("\n".join([lines[0], *spam, *ham]) + "\n")
    document = yaml.safe_load((EXAMPLE / "classifier.yaml").read_text())
    spec = document["spec"]
    document["metadata"]["name"] = "labels"
    spec["dataSets"][0]["source"]["uri"] = "file:sms.tsv"
    spec["large"]["finetune"].update(maxExamples=128, epochs="1", learningRate="0.0003", maxLength=64)
    spec["lean"]["steps"][1].update(maxExamples=128, epochs="1", learningRate="0.0003", maxLength=64)
    spec["evaluation"].update(gates=[{"metric": "SizeRatio", "max": "0.2"}], throughputRequests=40)
    spec["routing"]["promise"] = {"retain": "0.5", "risk": "0.1"}
    path = folder / "labels.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def up(
    cli: Cli, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    path, port = write(tmp_path_factory.mktemp("classifier")), free_port()
    done = cli.run("up", "-f", str(path), "--detach", "--port", str(port), timeout=1100)
    assert done.returncode in (0, 4), done.stdout + done.stderr
    yield {
        "status": json.loads(cli.run("status", "labels", "-o", "json").stdout)["status"],
        "done": done,
        "url": f"http://127.0.0.1:{port}",
    }
    assert cli.run("down", "labels").returncode == 0
    wait_until(lambda: not processes_of(cli.home), 30, "the end of all processes")


def test_a_text_gets_a_label(up: dict[str, Any]) -> None:
    body = {"model": "labels", "input": "WINNER! Claim your free prize, call 09061701461 now"}
    request = urllib.request.Request(
        f"{up['url']}/classify",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found, headers = json.load(answer), answer.headers
    (item,) = found["data"]
    assert item["label"] == "spam" and sum(item["probs"]) == pytest.approx(1)
    assert found["model"].startswith(("lean-", "large-"))
    assert headers["x-leanmodel-route"] in ("lean", "large", "escalated")


def test_the_proof_says_how_small_and_how_good(cli: Cli, up: dict[str, Any]) -> None:
    report = up["status"]["report"]
    assert 0.03 < float(report["sizeRatio"]) < 0.15
    assert float(report["throughputRatio"]) > 1
    text = cli.run("report", "labels", "-o", "json").stdout
    found = json.loads(text)
    names = {model["name"] for model in found["models"]}
    assert {"large", "lean", "pair", "always-ham", "tfidf-logreg"} <= names
    assert found["policy"]["scope"]["endpoint"] == "classify"


def test_the_command_to_try_is_the_right_one(up: dict[str, Any]) -> None:
    assert f"{up['url']}/classify" in up["done"].stdout
    assert '"input":' in up["done"].stdout
