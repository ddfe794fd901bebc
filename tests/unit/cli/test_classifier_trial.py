"""The first request that is shown to try, for the classifier of the examples."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from leanmodel_api.manifest import load
from leanmodel_cli.trial import trial

EXAMPLE = Path(__file__).parents[3] / "examples" / "quickstart" / "classifier.yaml"


def test_a_text_of_the_data_itself() -> None:
    text = json.loads(trial(load(yaml.safe_load(EXAMPLE.read_text())), str(EXAMPLE.parent)))
    assert text.startswith("Go until jurong point")
