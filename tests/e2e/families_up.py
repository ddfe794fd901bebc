"""A manifest for every row of the table of families: the examples' own steps, in small. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
CLASSIFY, EMBED = "text-classification", "text-embedding"
EXAMPLES = {
    "Gemma3ForCausalLM": "gemma3",
    "GPT2LMHeadModel": "gpt2",
    "Phi3ForCausalLM": "phi3",
    CLASSIFY: "classifier",
    EMBED: "embeddings",
}
"""The example whose steps a decoder's architecture, or an encoder's task, goes through; leanmodel.yaml where none is named."""
SHORT = {"maxExamples": 96, "epochs": "1", "learningRate": "0.005", "batchSize": 16, "maxLength": 128}
SMALLER = {"maxExamples": 192, "epochs": "6", "learningRate": "0.01", "batchSize": 16, "maxLength": 32}
"""Trainings of a few steps: of decoders, and of encoders, which learn their labels in them."""
LENGTH = {CLASSIFY: 64, EMBED: 64}
"""Tokens that the small encoders were made for; decoders take 256."""


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        family: as the table names it.
        task: as a manifest names it.
        folder: of the small model, beside the messages.
        example: the manifest whose steps it goes through.
        steps: in the example's place, where it has none for the row.
        brought: whether the lean model begins with weights of its own, and the large one teaches.
    """

    family: str
    task: str
    folder: str
    example: str
    steps: tuple[dict[str, Any], ...] = ()
    brought: bool = False

    @property
    def name(self) -> str:
        """A name that a LeanModel may have."""
        words = f"{self.family} {self.task.removeprefix('text-')}".lower()
        return "-".join("".join(c if c.isalnum() else " " for c in words).split())


def case(family: str, task: str | None, decoder: str) -> Case:
    """Return the case of a row of the table.

    Args:
        family: as the table names it.
        task: as plans carry it, None for text generation.
        decoder: its architecture, empty for an encoder.
    """
    if task is None:
        return Case(family, "text-generation", decoder, EXAMPLES.get(decoder, "leanmodel"))
    return Case(family, task, family if task == CLASSIFY else f"{family}-sentences", EXAMPLES[task])


LINEAR = Case("TF-IDF", CLASSIFY, "Bert", "classifier", ({"type": "Linear", "maxFeatures": 500},))
"""The linear model is made beside a large encoder, of whatever family."""
STUDENT = Case("Own student", CLASSIFY, "Bert", "classifier", brought=True)
"""An encoder without a head, whose tokens are the large one's, is cut, taught, trimmed and exported."""


def manifest(case: Case, models: Path) -> dict[str, Any]:
    """Return a LeanModel whose lean model takes all requests, so that both engines are asked: one by the proof alone."""
    document: dict[str, Any] = yaml.safe_load((QUICKSTART / f"{case.example}.yaml").read_text())
    document["metadata"]["name"] = case.name
    spec = document["spec"]
    spec["dataSets"][0]["source"]["uri"] = f"file:{models / 'messages.tsv'}"
    spec["dataSets"][0]["split"] = {
        "seed": 0, "train": "0.5", "validation": "0.1", "fit": "0.1", "certify": "0.1", "report": "0.1", "test": "0.1",
    }  # fmt: skip
    spec["large"]["source"] = {"uri": f"file:{models / case.folder}"}
    if "finetune" in spec["large"]:
        spec["large"]["finetune"] |= small(spec["large"]["finetune"], case)
    spec["lean"]["steps"] = [
        step | small(step, case) for step in case.steps or spec["lean"]["steps"]
    ]  # fmt: skip
    if case.brought:
        spec["lean"]["source"] = dict(spec["large"]["source"])
    spec["evaluation"] |= {"gates": [{"metric": "SizeRatio", "max": "0.99"}], "throughputRequests": 20}
    spec["evaluation"]["concurrency"] = 8
    spec["routing"] = {"strategy": "Fixed", "fixed": "Lean"}
    spec.pop("jobs", None)
    for name in ("large", "lean"):
        spec["serving"][name] |= {"maxModelLength": LENGTH.get(case.task, 256)}
        spec["serving"][name].pop("resources", None)
    return document


def small(step: dict[str, Any], case: Case) -> dict[str, Any]:
    """Return what a step of an example has otherwise here: short trainings, fewer layers, narrow groups."""
    if step.get("type") in (None, "Distill", "Heal"):
        fields = SMALLER if case.task in LENGTH else SHORT
        return fields | ({"trainLayers": 2} if "trainLayers" in step else {})
    if step.get("method") == "Depth":
        return {"keepLayers": 2}
    return {"groupSize": 32} if "groupSize" in step else {}
