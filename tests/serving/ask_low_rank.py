"""Asks vLLM about the models of make_low_rank.py, each in turn: ``ask_low_rank.py FOLDER``; answers in answers.json.

A program of its own: vLLM keeps its process's settings to itself, and ends with it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from leanmodel_api.low_rank import FAMILIES, architecture

os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_NO_USAGE_STATS="1",
    HF_HUB_OFFLINE="1",
    TORCH_COMPILE_DISABLE="1",
)


def main(folder: Path) -> None:
    from vllm import LLM, ModelRegistry, SamplingParams

    from leanmodel_serving.engines import low_rank_models

    # A class that vLLM imports by name it looks at in a process of its own first, ten seconds each. One family goes
    # that way, as in service; the others' classes are handed over.
    for family in FAMILIES[1:]:
        name = architecture(family)
        ModelRegistry.register_model(name, getattr(low_rank_models, name))
    answers = {}
    for place in sorted(path.parent for path in folder.glob("*/expected.json")):
        prompt = json.loads((place / "expected.json").read_text())["prompt"]
        engine = LLM(
            model=str(place), dtype="float32", enforce_eager=True, max_model_len=64, skip_tokenizer_init=True,
            kv_cache_memory_bytes=2**24, distributed_executor_backend="uni", disable_log_stats=True,
        )  # fmt: skip
        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1, detokenize=False)
        said = engine.generate([{"prompt_token_ids": prompt}], asked, use_tqdm=False)[0]
        logprobs = [entry[token].logprob for entry, token in zip(said.prompt_logprobs[1:], prompt[1:])]  # noqa: B905
        answers[place.name] = {"logprobs": logprobs, "next": said.outputs[0].token_ids[0]}
        engine.llm_engine.engine_core.shutdown()
        del engine
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
