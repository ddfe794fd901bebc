"""llama.cpp as a process of its own: ``python -m leanmodel_compression.edge.runtime FILE``.

A file that llama.cpp does not like can end the process that loads it, so that is never the Job's. Questions come as
JSON on standard input, answers leave as JSON in the file's place ``answers`` names.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 1800
PR_SET_PDEATHSIG = 1


class RuntimeFailedError(RuntimeError):
    """llama.cpp did not load the file, or did not answer; the message has its last words."""


@dataclass(frozen=True)
class Answer:
    """A greedy answer: its tokens, and for each the log-probabilities of the likeliest tokens by number."""

    tokens: tuple[int, ...]
    likeliest: tuple[dict[int, float], ...]


def missing() -> str:
    """Return what the runtime lacks here, empty where it can be asked."""
    import ctypes
    from importlib.util import find_spec

    if find_spec("xllamacpp") is None:
        return "the package xllamacpp"
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return "the library libgomp.so.1"
    return ""


def ask(
    path: Path, texts: Sequence[str], prompts: Sequence[Sequence[int]], length: int, alternatives: int, scratch: Path
) -> tuple[list[list[int]], list[Answer]]:  # fmt: skip
    """Load a file in llama.cpp, let it split texts and answer prompts greedily.

    Args:
        path: the GGUF file.
        texts: to be split into tokens, special tokens among them.
        prompts: token numbers.
        length: tokens of an answer at most.
        alternatives: likeliest tokens per position.
        scratch: folder for the answers.

    Raises:
        RuntimeFailedError: it did not load, or did not answer.
    """
    answers = scratch / "answers.json"
    question = {
        "texts": list(texts),
        "prompts": [list(prompt) for prompt in prompts],
        "length": length,
        "alternatives": alternatives,
        "answers": str(answers),
    }
    answers.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(path)],
            input=json.dumps(question), text=True, capture_output=True, timeout=LIMIT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RuntimeFailedError(f"no answer within {LIMIT_SECONDS} s") from error
    if not answers.exists():
        last = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise RuntimeFailedError(f"exit {done.returncode}: {last or 'no message'}")
    found = json.loads(answers.read_text())
    answers.unlink()
    if "error" in found:
        raise RuntimeFailedError(found["error"])
    return found["texts"], [
        Answer(
            tuple(entry["id"] for entry in one),
            tuple({other["id"]: other["logprob"] for other in entry["top_logprobs"]} for entry in one),
        )
        for one in found["answers"]
    ]


def main() -> None:
    """Answer the questions on standard input."""
    import ctypes

    # Whoever asked may be killed; nobody wants the answers then.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    question = json.load(sys.stdin)
    try:
        found = reply(sys.argv[1], question)
    except (RuntimeError, ValueError, OSError) as error:
        # Said here, because llama.cpp goes on talking while it ends.
        found = {"error": f"{type(error).__name__}: {error}"}
    Path(question["answers"]).write_text(json.dumps(found))


def reply(path: str, question: dict[str, Any]) -> dict[str, Any]:
    """Return the tokens of the texts and the answers to the prompts."""
    longest = max(len(prompt) for prompt in question["prompts"]) + question["length"]
    key = secrets.token_hex(16)
    server = start(path, longest + 8, key)
    texts = [split(server.listening_address, key, text) for text in question["texts"]]
    answers = [
        answer(server, prompt, question["length"], question["alternatives"]) for prompt in question["prompts"]
    ]
    return {"texts": texts, "answers": answers}


def start(path: str, context: int, key: str) -> Any:
    """Return a llama.cpp server in this process: on the loopback interface, behind a key."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.n_ctx, settings.n_parallel = context, 1
    settings.n_gpu_layers = 0
    threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.api_keys = [key]
    settings.warmup = False
    return xllamacpp.Server(settings)


def split(address: str, key: str, text: str) -> list[int]:
    """Return a text's tokens, special ones recognised, begun as the file says."""
    body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/tokenize", body, headers)) as reply:
        return list(json.load(reply)["tokens"])


def answer(server: Any, prompt: Sequence[int], length: int, alternatives: int) -> list[dict[str, Any]]:
    """Return a greedy answer's positions, each with its token and the likeliest ones (before any sampling)."""
    found = server.handle_completions(
        {
            "prompt": list(prompt),
            "n_predict": length,
            "temperature": 0,
            "n_probs": alternatives,
            "cache_prompt": False,
        }
    )
    if isinstance(found, str):
        found = json.loads(found)
    # A text that is at its end has no position at all.
    return list((found["choices"][0].get("logprobs") or {}).get("content", []))


if __name__ == "__main__":
    main()
