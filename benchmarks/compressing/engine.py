"""An engine in a process of its own: ``engine.py KIND FOLDER THREADS``, asked by JSON lines, so that blocks can take turns.

KIND is ``vLLM`` (each request is a prompt; as many tokens are generated as asked, whatever they are) or ``ONNXRuntime``
(each request is a text to label). No HTTP stands between: it would cost both models the same and flatter the slower one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Ask = Callable[[dict[str, Any]], dict[str, Any]]
CACHE_BYTES = 2**28


def main(kind: str, folder: Path, threads: int) -> None:
    """Load the model, say so, and answer line by line until the input ends."""
    # What libraries print must not mix with the answers.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    began = time.monotonic()
    ask = vllm(folder, threads) if kind == "vLLM" else onnx(folder, threads)
    print(json.dumps({"ready": round(time.monotonic() - began, 1)}), file=told, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic()
        answer = ask(asked)
        took = time.monotonic() - began
        print(json.dumps({"seconds": took, "requests": len(asked["texts"]), **answer}), file=told, flush=True)


def vllm(folder: Path, threads: int) -> Ask:
    """Return a function that has vLLM generate, settled as our engine settles it on a machine without a GPU."""
    from leanmodel_serving.engines.base import EngineSettings
    from leanmodel_serving.engines.hardware import cpu_dtype, cpu_flags, packed_weights
    from leanmodel_serving.engines.vllm import environment

    settings = EngineSettings(revision="measured", model=str(folder), token_file="-", threads=threads)
    os.environ.update(environment(settings))
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=str(folder), dtype=cpu_dtype("Auto", cpu_flags(), packed_weights(folder)), max_model_len=1024, enforce_eager=True,
        kv_cache_memory_bytes=CACHE_BYTES, distributed_executor_backend="uni", disable_log_stats=True,
        enable_prefix_caching=False, generation_config="vllm",
    )  # fmt: skip

    def ask(asked: dict[str, Any]) -> dict[str, Any]:
        how = SamplingParams(max_tokens=asked["tokens"], temperature=0, ignore_eos=True)
        said = engine.generate(asked["texts"], how, use_tqdm=False)
        return {
            "tokens": sum(len(one.outputs[0].token_ids) for one in said),
            "answers": [one.outputs[0].text for one in said],
        }

    return ask


def onnx(folder: Path, threads: int) -> Ask:
    """Return a function that labels texts as our engine does; those that wait together are computed together."""
    from leanmodel_serving.engines.onnx import Encoder

    encoder = Encoder(folder, threads)

    def ask(asked: dict[str, Any]) -> dict[str, Any]:
        texts, together, answers = asked["texts"], asked["together"], []
        for at in range(0, len(texts), together):
            ids = [encoder.ids(text) for text in texts[at : at + together]]
            answers += [encoder.labels[int(row.argmax())] for row in encoder.answers(ids)]
        return {"tokens": 0, "answers": answers}

    return ask


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
