"""The first request that is shown to try: in the words of the data, on the endpoint that the model has."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanmodel_api.manifest import load
from leanmodel_cli.commands.up import next_commands
from leanmodel_cli.trial import trial

EXAMPLES = Path(__file__).parents[3] / "examples" / "quickstart"


def document(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())


def test_a_classifiers_text_of_the_data_itself() -> None:
    body = json.loads(trial(load(document("classifier")), str(EXAMPLES)))
    assert body["input"].startswith("Go until jurong point")


def test_a_raw_prompt_keeps_the_words_that_its_certificate_speaks_of() -> None:
    body = json.loads(trial(load(document("gpt2")), str(EXAMPLES)))
    assert body["prompt"].startswith("SMS: Go until jurong point") and body["prompt"].endswith("\nLabel:\n")


def test_a_prompts_own_quotes_do_not_end_the_command() -> None:
    spec = document("leanmodel")
    spec["spec"]["dataSets"][0]["prompt"] = {"system": 'It\'s spam or "ham"?', "user": "What's {msg}"}
    system, user = json.loads(asked(spec)["body"])["messages"]
    assert system["content"] == 'It\'s spam or "ham"?' and user["content"].startswith("What's Go until")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("leanmodel", "/v1/chat/completions"),
        ("gpt2", "/v1/completions"),
        ("classifier", "/classify"),
        ("embeddings", "/v1/embeddings"),
    ],
)
def test_the_command_to_try_asks_the_endpoint_that_answers(name: str, path: str) -> None:
    found = asked(document(name))
    assert found["url"] == f"http://127.0.0.1:8000{path}"
    assert json.loads(found["body"])["model"] == document(name)["metadata"]["name"]


def asked(spec: Any) -> dict[str, str]:
    """Return what a shell makes of the command that `up` prints."""
    resource = spec | {
        "status": {"url": "http://127.0.0.1:8000/v1"},
        "trial": trial(load(spec), str(EXAMPLES)),
    }
    (line,) = (line for line in next_commands(resource).splitlines() if line.strip().startswith("curl"))
    words = shlex.split(line)
    return {"url": words[2], "body": words[words.index("-d") + 1]}
