"""GGUF before any work: what llama.cpp does not know is refused, and a tokenizer's pattern finds its name there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from leanmodel_api.step_rules import order_issues
from leanmodel_api.steps import Export, Factorize, Quantize
from leanmodel_compression.edge import gguf_file, runtime, vocabulary
from leanmodel_compression.shapes import from_config
from leanmodel_compression.steps.export import Exporting, compare
from leanmodel_compression.steps.protocol import Task

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}  # fmt: skip


def export(**fields: str) -> Export:
    return Export.model_validate({"type": "Export", "format": "GGUF", **fields})


def words(step: Export, tokenizer: str = "BPE", **config: Any) -> str:
    task = Task(step, "spec.lean.steps[0]", from_config({**CONFIG, **config}), tokenizer=tokenizer)
    return "\n".join(str(issue) for issue in Exporting().issues(task))


@pytest.mark.parametrize("precision", gguf_file.TYPES)
@pytest.mark.parametrize("architecture", gguf_file.FAMILIES)
def test_what_llama_cpp_knows_is_taken(precision: str, architecture: str) -> None:
    gpt2 = {"n_embd": 64, "n_inner": 128, "n_layer": 2, "n_head": 4, "n_positions": 256}
    assert words(export(precision=precision), architectures=[architecture], **gpt2) == ""


@pytest.mark.parametrize(
    ("step", "config", "found", "remedy"),
    [
        (export(), {"architectures": ["FalconForCausalLM"]}, "GGUF of FalconForCausalLM is not supported", "Llama"),
        (export(), {"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "positions scaled by llama3", "own converter"),
        (export(), {"rope_parameters": {"rope_type": "yarn"}}, "positions scaled by yarn", "own converter"),
        (export(), {"sliding_window": 4096}, "a window of 4096 tokens", "own converter"),
        (export(precision="Int8"), {"intermediate_size": 100}, "blocks of 32 columns, and layers have 100", "Float16"),
        (Export(type="Export"), {}, "format: ONNX of a decoder", "write GGUF"),
    ],
)  # fmt: skip
def test_what_it_does_not_know_is_refused_with_what_to_write(
    step: Export, config: dict[str, Any], found: str, remedy: str
) -> None:
    said = words(step, **config)
    assert said.startswith("spec.lean.steps[0].") and found in said and remedy in said


def test_a_window_that_is_not_used_is_none() -> None:
    assert words(export(), sliding_window=4096, use_sliding_window=False) == ""


def test_another_kind_of_tokenizer_is_refused() -> None:
    assert "Unigram tokenizer" in words(export(), tokenizer="Unigram")


def test_without_the_runtime_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "missing", lambda: "the library libgomp.so.1")
    said = words(export())
    assert "lacks the library libgomp.so.1" in said and "install leanmodel[compression]" in said


@pytest.mark.parametrize(
    ("earlier", "remedy"),
    [
        (Quantize(type="Quantize"), "write precision: Int8 here"),
        (Factorize(type="Factorize", ratio="0.2"), "remove one"),
    ],
)
def test_steps_that_leave_nothing_to_export_are_named(earlier: Quantize | Factorize, remedy: str) -> None:
    (issue,) = order_issues([earlier, export()], "spec.lean.steps")
    assert issue.field == "spec.lean.steps[1].type" and remedy in str(issue)


def bpe(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    inner = parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": list(parts)}
    return {"model": {"type": "BPE"}, "pre_tokenizer": inner, "normalizer": None, **more}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
PLAIN = {**BYTES, "use_regex": False}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (bpe(BYTES), "gpt-2"),
        (bpe({"type": "Digits", "individual_digits": True}, BYTES), "smollm"),
        (bpe(split(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s]+"), PLAIN), "llama-bpe"),
        (bpe(split(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s]+"), PLAIN), "qwen2"),
        (bpe(BYTES, normalizer={"type": "NFC"}), "gpt-2"),
        (bpe(BYTES, normalizer={"type": "Sequence", "normalizers": []}), "gpt-2"),
    ],
)
def test_the_pattern_of_a_tokenizer_has_a_name(tokenizer: dict[str, Any], name: str) -> None:
    assert vocabulary.split_of(tokenizer) == name


@pytest.mark.parametrize(
    ("tokenizer", "found"),
    [
        ({"model": {"type": "Unigram"}}, "a Unigram tokenizer"),
        ({"model": {"type": "BPE"}, "pre_tokenizer": None}, "not a byte-level BPE"),
        (bpe({**BYTES, "add_prefix_space": True}), "not a byte-level BPE"),
        (bpe(BYTES, normalizer={"type": "Lowercase"}), "changes text"),
        (bpe(split(r"\w+"), PLAIN), "no name for how it splits text"),
        (bpe({"type": "Digits", "individual_digits": False}, BYTES), "no name for how it splits text"),
    ],
)
def test_a_tokenizer_without_a_name_is_refused(tokenizer: dict[str, Any], found: str) -> None:
    with pytest.raises(vocabulary.UnsuitedError, match=found):
        vocabulary.split_of(tokenizer)


def test_halves_of_a_head_become_neighbours() -> None:
    shape = from_config(CONFIG)  # four heads of 16, two of keys
    rows = torch.arange(64).reshape(64, 1).float()
    found = gguf_file.arranged("model.layers.0.self_attn.q_proj.weight", rows, shape, True)[:, 0].tolist()
    assert found[:6] == [0, 8, 1, 9, 2, 10] and found[16:20] == [16, 24, 17, 25]
    assert gguf_file.arranged("model.layers.0.self_attn.v_proj.weight", rows, shape, True) is rows
    assert gguf_file.arranged("model.layers.0.self_attn.q_proj.weight", rows, shape, False) is rows


class Fixed:
    """A model whose next token's chances are the same everywhere."""

    config = None

    def __init__(self, chances: list[float]):
        self.logits = torch.tensor(chances).log()

    def base_model(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        return type("States", (), {"last_hidden_state": torch.zeros(1, input_ids.shape[1], 1)})

    def get_output_embeddings(self) -> Any:
        return lambda states: self.logits.expand(len(states), -1)


def told(token: int, chances: dict[int, float]) -> runtime.Answer:
    return runtime.Answer(
        (token,), ({number: float(torch.tensor(p).log()) for number, p in chances.items()},)
    )


def test_a_difference_is_what_it_is_by_hand() -> None:
    model = Fixed([0.5, 0.3, 0.2])
    same = compare(model, [[1, 2]], [told(0, {0: 0.5, 1: 0.3, 2: 0.2})])
    assert same.distance == pytest.approx(0, abs=1e-6) and (same.worse, same.same) == (0.0, 1.0)
    other = compare(model, [[1, 2]], [told(1, {1: 0.4, 0: 0.4})])
    assert other.distance == pytest.approx(0.5 * (0.1 + 0.1 + 0.0)) and other.worse == pytest.approx(0.2)
    assert other.same == 0.0 and other.issue("f", "Int8") is not None and same.issue("f", "Float32") is None


def test_no_answer_at_all_is_no_agreement() -> None:
    assert compare(Fixed([1.0]), [[0]], [runtime.Answer((), ())]).issue("f", "Int8") is not None
