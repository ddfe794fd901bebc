"""Asks vLLM about tiny models, each in turn: ``ask_vllm.py FOLDER``; answers in answers.json.

A model is a folder below FOLDER with an ``expected.json``: its ``prompt``, and in ``answer`` the tokens that are
wanted, where it is more than one. What low-rank models need is registered.

A program of its own: vLLM keeps its process's settings to itself, and ends with it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from leanmodel_api.low_rank import FAMILIES, architecture

os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_NO_USAGE_STATS="1",
    HF_HUB_OFFLINE="1",
    TORCH_COMPILE_DISABLE="1",
)


OURS = "leanmodel_serving.engines.low_rank_models"
VLLMS = {
    "Gemma3ForCausalLM": "vllm.model_executor.models.gemma3",
    "GPT2LMHeadModel": "vllm.model_executor.models.gpt2",
    "Phi3ForCausalLM": "vllm.model_executor.models.phi3",
}
"""vLLM's own classes, where its registry has them."""


def read(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def main(folder: Path) -> None:
    from vllm import LLM, ModelRegistry, SamplingParams

    asked = {read(path.parent / "config.json")["architectures"][0] for path in folder.glob("*/expected.json")}
    # A class that vLLM imports by name it looks at in a process of its own first, ten seconds each. One low-rank family
    # goes that way, as in service; the others' classes are handed over.
    for name in asked & {architecture(family) for family in FAMILIES[1:]}:
        ModelRegistry.register_model(name, getattr(importlib.import_module(OURS), name))
    for name in asked & VLLMS.keys():
        ModelRegistry.register_model(name, getattr(importlib.import_module(VLLMS[name]), name))
    answers = {}
    for place in sorted(path.parent for path in folder.glob("*/expected.json")):
        expected = read(place / "expected.json")
        prompt, length = expected["prompt"], len(expected.get("answer", [0]))
        engine = LLM(
            model=str(place), dtype="float32", enforce_eager=True, max_model_len=64, skip_tokenizer_init=True,
            kv_cache_memory_bytes=2**24, distributed_executor_backend="uni", disable_log_stats=True,
        )  # fmt: skip
        wanted = SamplingParams(
            max_tokens=length, temperature=0, prompt_logprobs=1, detokenize=False, ignore_eos=True
        )
        said = engine.generate([{"prompt_token_ids": prompt}], wanted, use_tqdm=False)[0]
        logprobs = [entry[token].logprob for entry, token in zip(said.prompt_logprobs[1:], prompt[1:])]  # noqa: B905
        tokens = list(said.outputs[0].token_ids)
        answers[place.name] = {"logprobs": logprobs, "next": tokens[0], "answer": tokens}
        engine.llm_engine.engine_core.shutdown()
        del engine
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
