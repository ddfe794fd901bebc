"""The rows: which steps, on which subject, in which order they are run. Pure.

Subjects share nothing but the code: `words` is SmolLM2-135M as it came, on WikiText-2, with every step; `sms` is the same
model fine-tuned on the messages, cut to half its depth and through the pipelines; `labels` is a MiniLM with a head for
the same messages, with every step that encoders have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

Subject = Literal["words", "sms", "labels"]
Steps = list[dict[str, Any]]
SUBJECTS: tuple[Subject, ...] = ("words", "sms", "labels")
LARGE = "large"
"""The row that the others of a subject are held against."""


@dataclass(frozen=True)
class Row:
    """One row of the page.

    Attributes:
        subject: whose model and data.
        name: unique within the subject.
        steps: as in a manifest; none for the large model itself.
        kind: what it stands for: a step `alone`, `healed`, a `pipeline`, or a `control` that compresses nothing.
        rank: rows are made in this order, cheap and telling ones first.
        timed: whether its engine's speed is measured; its siblings of the same shape share the figure.
        like: the row whose speed it shares, where it is not timed itself.
    """

    subject: Subject
    name: str
    steps: Steps
    kind: Literal["alone", "healed", "pipeline", "control", "large"]
    rank: int
    timed: bool = True
    like: str = ""

    @property
    def id(self) -> str:
        """The name that is unique among all rows, as `--rows` takes it."""
        return f"{self.subject}/{self.name}"


@dataclass(frozen=True)
class Training:
    """How long the trainings of a subject are; `--examples` shortens them."""

    examples: int
    epochs: str
    rate: str
    batch: int
    length: int
    imbalance: int | None = None

    def fields(self, **more: Any) -> dict[str, Any]:
        """Return what a training step has of it."""
        found = {
            "maxExamples": self.examples, "epochs": self.epochs, "learningRate": self.rate, "batchSize": self.batch,
            "maxLength": self.length, **more,
        }  # fmt: skip
        return found if self.imbalance is None else {**found, "maxImbalance": self.imbalance}


TRAININGS: dict[Subject, Training] = {
    "words": Training(256, "1", "0.0002", 4, 256),
    "sms": Training(400, "2", "0.0002", 8, 256, imbalance=4),
    "labels": Training(2000, "5", "0.0001", 16, 128),
}
SAMPLES: dict[Subject, int] = {"words": 64, "sms": 128, "labels": 0}
"""Calibration rows: of 256 tokens in words, of about 50 in sms."""
BRIEF = 4
"""Of WikiText-2, other rows learn from this part of the windows: a whole run is a matter of hours as it is."""


def rows(examples: int | None = None) -> list[Row]:
    """Return all rows in the order in which they are made.

    Args:
        examples: at most so many rows in each training and calibration, for a try. Default: as published.
    """
    found = [*word_rows(examples), *message_rows(examples), *encoder_rows(examples)]
    return sorted(found, key=lambda row: row.rank)


def training_of(subject: Subject, examples: int | None) -> Training:
    """Return a subject's training, shortened."""
    whole = TRAININGS[subject]
    if examples is None:
        return whole
    return replace(whole, examples=min(examples, whole.examples))


def samples_of(subject: Subject, examples: int | None) -> int:
    """Return a subject's calibration rows, shortened."""
    return min(SAMPLES[subject], examples or SAMPLES[subject])


def word_rows(examples: int | None = None) -> list[Row]:
    """Return the rows of SmolLM2 on WikiText-2."""
    subject: Subject = "words"
    training, samples = training_of(subject, examples), samples_of(subject, examples)
    seen = {"samples": samples, "maxLength": training.length}
    brief = replace(training, examples=max(8, training.examples // BRIEF))

    def heal(how: Training = brief, **more: Any) -> dict[str, Any]:
        return {"type": "Heal", **how.fields(**more)}

    def quantize(scheme: str, algorithm: str, **more: Any) -> dict[str, Any]:
        calibrated = {} if algorithm == "RTN" else seen
        group = {"groupSize": 64} if scheme == "W4A16" else {}
        return {"type": "Quantize", "scheme": scheme, "algorithm": algorithm, **group, **calibrated, **more}

    def prune(method: str, **more: Any) -> dict[str, Any]:
        return {"type": "Prune", "method": method, **more}

    rtn4, rtn8 = quantize("W4A16", "RTN"), quantize("W8A8", "RTN")
    made: list[Row] = [Row(subject, LARGE, [], "large", 0)]

    def add(name: str, rank: int, steps: Steps, kind: Any = "alone", like: str = "") -> None:
        made.append(Row(subject, name, steps, kind, rank, timed=not like, like=like))

    def both(name: str, ranks: tuple[int, int], steps: Steps, healing: Steps, like: str = "") -> None:
        add(name, ranks[0], steps, like=like)
        add(f"{name} healed", ranks[1], [*steps, *healing], "healed", like or name)

    # The grids, unhealed and trained for.
    add("rtn w8a8", 10, [rtn8])
    add("rtn w4a16", 11, [rtn4])
    add("rtn w8a16", 42, [quantize("W8A16", "RTN")])
    add("gptq w4a16", 12, [quantize("W4A16", "GPTQ")], like="rtn w4a16")
    add("awq w4a16", 40, [quantize("W4A16", "AWQ")], like="rtn w4a16")
    add("smoothquant w8a8", 41, [quantize("W8A8", "SmoothQuant")], like="rtn w8a8")
    add("gptq w8a8", 42, [quantize("W8A8", "GPTQ")], like="rtn w8a8")
    # The layers that mind most apart.
    spared = {**seen, "ignoreSensitive": 6}
    add("rtn w4a16 but 6 layers", 43, [quantize("W4A16", "RTN", **spared)])
    add("gptq w4a16 but 6 layers", 44, [quantize("W4A16", "GPTQ", **spared)], like="rtn w4a16 but 6 layers")
    # The token table in 8 bits, too.
    table = {"embeddings": "Int8"}
    add("rtn w4a16 and table", 45, [quantize("W4A16", "RTN", **table)])
    add("gptq w4a16 and table", 46, [quantize("W4A16", "GPTQ", **table)], like="rtn w4a16 and table")
    add(
        "qat w4a16",
        21,
        [heal(training, quantizationAware="W4A16", groupSize=64), rtn4],
        "healed",
        "rtn w4a16",
    )
    add("qat w8a8", 43, [heal(quantizationAware="W8A8"), rtn8], "healed", "rtn w8a8")
    # What the same training gives without the grid in view, and without any compression.
    add("trained", 20, [heal(training)], "control", LARGE)
    add("trained then rtn w4a16", 22, [heal(training), rtn4], "control", "rtn w4a16")
    add("trained then gptq w4a16", 23, [heal(training), quantize("W4A16", "GPTQ")], "control", "rtn w4a16")
    # Zeros: as many bytes as before, so that the large model's speed is theirs.
    two = {"structure": "2:4"}
    both("sparsegpt 2:4", (13, 24), [prune("SparseGPT", **two, **seen)], [heal(training)], LARGE)
    both("wanda 2:4", (31, 51), [prune("Wanda", **two, **seen)], [heal()], LARGE)
    both("magnitude 2:4", (30, 50), [prune("Magnitude", **two)], [heal()], LARGE)
    blocks = {"structure": "Block", "blockSize": 16, "ratio": "0.3"}
    both("blocks of 16 at 30%", (32, 52), [prune("Magnitude", **blocks)], [heal()], LARGE)
    add("gradual 50%", 53, [heal(pruneTo="0.5")], "healed", LARGE)
    add("movement 50%", 54, [heal(pruneTo="0.5", pruneBy="Movement")], "healed", LARGE)
    # Shapes.
    again = [heal()]
    first = {"selection": "First"}
    both(
        "half depth",
        (15, 49),
        [prune("Depth", keepLayers=15, **first)],
        [{"type": "Distill", **brief.fields()}],
    )
    add("half depth by influence", 33, [prune("Depth", keepLayers=15, samples=samples)], like="half depth")
    both("neurons 25%", (34, 55), [prune("Neurons", ratio="0.25", **seen)], again)
    both("heads 33%", (35, 56), [prune("Heads", ratio="0.34", **seen)], again)
    both("width 12.5%", (36, 57), [prune("Width", ratio="0.125", **seen)], again)
    # Of the model, token table included, a fifth; of the layers that are treated, 26%.
    low = [{"type": "Factorize", "ratio": "0.23", **seen}]
    both("low rank 20%", (14, 26), low, [heal(training, method="LoRA", loraRank=32, learningRate="0.001")])
    add("low rank 20% healed in full", 27, [*low, heal(training)], "healed", "low rank 20%")
    both("shared by two", (37, 58), [{"type": "Share", "layersPerGroup": 2}], again, LARGE)
    both("trimmed", (38, 59), [{"type": "Trim"}], [heal(labelWeight="1")])
    add("gguf int8", 60, [{"type": "Export", "format": "GGUF", "precision": "Int8"}], like=LARGE)
    return made


def message_rows(examples: int | None = None) -> list[Row]:
    """Return the rows of SmolLM2 on the messages: half its depth, and the candidates for the best pipelines."""
    subject: Subject = "sms"
    training, samples = training_of(subject, examples), samples_of(subject, examples)
    taught = {"type": "Distill", **training.fields()}
    trim = {"type": "Trim", "minVocabulary": 16000}
    rtn8 = {"type": "Quantize", "scheme": "W8A8", "algorithm": "RTN"}
    rtn4 = {"type": "Quantize", "scheme": "W4A16", "algorithm": "RTN", "groupSize": 64}

    def cut(layers: int) -> dict[str, Any]:
        return {"type": "Prune", "method": "Depth", "keepLayers": layers, "selection": "First"}

    by_influence = {"type": "Prune", "method": "Depth", "keepLayers": 15, "samples": samples}
    made = [
        Row(subject, LARGE, [], "large", 0),
        Row(subject, "half depth", [cut(15)], "alone", 15),
        Row(subject, "half depth healed", [cut(15), taught], "healed", 25, timed=False, like="half depth"),
        Row(subject, "half depth by influence", [by_influence], "alone", 33, timed=False, like="half depth"),
        Row(subject, "rtn w8a8", [rtn8], "pipeline", 34),
    ]
    aware = {**taught, "quantizationAware": "W4A16", "groupSize": 64}
    matched = {**taught, "objectives": ["Logits", "Hidden"]}
    made.append(
        Row(subject, "half depth by logits and hidden", [cut(15), matched], "healed", 26, False, "half depth")
    )
    candidates: dict[str, Steps] = {
        "15 layers distilled w8a8": [cut(15), taught, rtn8],
        "10 layers distilled w8a8": [cut(10), taught, rtn8],
        "10 layers distilled trimmed w8a8": [cut(10), taught, trim, rtn8],
        "4 layers distilled w8a8": [cut(4), taught, rtn8],
        "4 layers distilled trimmed w8a8": [cut(4), taught, trim, rtn8],
        "15 layers distilled aware w4a16": [cut(15), taught, aware, rtn4],
        "10 layers distilled trimmed w8a8 and table": [
            cut(10),
            taught,
            trim,
            {**rtn8, "embeddings": "Int8"},
        ],
    }
    pipelines = enumerate(candidates.items(), start=70)
    return [*made, *(Row(subject, name, steps, "pipeline", rank) for rank, (name, steps) in pipelines)]


def encoder_rows(examples: int | None = None) -> list[Row]:
    """Return the rows of the MiniLM classifier."""
    fields = training_of("labels", examples).fields()

    def cut(layers: int) -> dict[str, Any]:
        return {"type": "Prune", "method": "Depth", "keepLayers": layers, "selection": "Alternate"}

    def taught(*objectives: str) -> dict[str, Any]:
        return {"type": "Distill", "objectives": list(objectives), **fields}

    int8 = {"type": "Export", "format": "ONNX", "precision": "Int8"}
    both, trim = taught("Logits", "Hidden"), {"type": "Trim"}
    half, third, sixth = cut(3), cut(2), cut(1)
    narrow = {"type": "Prune", "method": "Neurons", "ratio": "0.5"}
    small = {"type": "Scratch", "layers": 2, "hiddenSize": 192, "intermediateSize": 768, "heads": 6}

    def row(name: str, rank: int, steps: Steps, kind: Any = "alone", like: str = "") -> Row:
        return Row("labels", name, steps, kind, rank, timed=not like, like=like)

    return [
        row(LARGE, 0, [], "large"),
        row("int8", 16, [int8]),
        row("half depth", 16, [half]),
        row("half depth by logits", 44, [half, taught("Logits")], "healed", "half depth"),
        row("half depth by logits and hidden", 17, [half, both], "healed", "half depth"),
        row("half depth by attention", 45, [half, taught("Logits", "Attention")], "healed", "half depth"),
        row("neurons 50%", 46, [narrow]),
        row("neurons 50% healed", 47, [narrow, both], "healed", "neurons 50%"),
        row("trimmed", 48, [trim]),
        row("linear", 18, [{"type": "Linear"}]),
        row("2 layers from scratch distilled int8", 49, [small, taught("Logits"), int8], "pipeline"),
        row("3 layers distilled int8", 19, [half, both, int8], "pipeline"),
        row("2 layers distilled int8", 28, [third, both, int8], "pipeline"),
        row("1 layer distilled int8", 29, [sixth, both, int8], "pipeline"),
        row("3 layers distilled trimmed int8", 30, [half, both, trim, int8], "pipeline"),
        row("2 layers distilled trimmed int8", 30, [third, both, trim, int8], "pipeline"),
        row("1 layer distilled trimmed int8", 30, [sixth, both, trim, int8], "pipeline"),
        row("neurons 50% distilled trimmed int8", 48, [narrow, both, trim, int8], "pipeline"),
    ]
