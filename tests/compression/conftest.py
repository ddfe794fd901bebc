"""Tiny models, a tiny data set and plans over them: every step runs in seconds."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Before anything imports torch: the Job's own settings, so that results in and out of process agree.
from leanmodel_compression.__main__ import settle

settle(1)

import pytest  # noqa: E402
import torch  # noqa: E402

from leanmodel_api.plan import CompressPlan, CompressResult  # noqa: E402
from leanmodel_api.progress import ProgressLine, parse  # noqa: E402
from leanmodel_compression.job import Job  # noqa: E402
from leanmodel_compression.progress import Reporter  # noqa: E402
from leanmodel_store.artifacts import Store  # noqa: E402

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = [
    "win",
    "free",
    "prize",
    "cash",
    "call",
    "now",
    "hello",
    "lunch",
    "later",
    "home",
    "ok",
    "thanks",
    "see",
]


CONFIGS = {"Gemma3": "Gemma3TextConfig"}
CLASSES = {"GPT2": "GPT2LMHeadModel"}
"""transformers' names, where they are not the family's with Config and ForCausalLM behind."""
# A window that is shorter than a row, so that layers with and without one differ.
OWN_SIZES: dict[str, dict[str, Any]] = {
    "Gemma3": {
        "sliding_window": 8, "query_pre_attn_scalar": 16, "pad_token_id": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "Phi3": {"pad_token_id": 0, "head_dim": None},
    # What is None here has another name there.
    "GPT2": {
        **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")),
        **dict.fromkeys(("num_key_value_heads", "max_position_embeddings", "head_dim")),
        "n_embd": 32, "n_inner": 64, "n_layer": 4, "n_head": 2, "n_positions": 256,
    },
}  # fmt: skip
"""What a family has besides, or otherwise."""


@pytest.fixture(scope="session")
def texts() -> list[tuple[str, str]]:
    """Messages of two kinds that differ by their words."""
    draw = random.Random(7)
    rows = []
    for number in range(240):
        spam = number % 3 == 0
        words = draw.sample(WORDS[:7] if spam else WORDS[6:], k=draw.randint(3, 6))
        rows.append(("spam" if spam else "ham", f"{' '.join(words)} {number}"))
    return rows


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    path = tmp_path_factory.mktemp("data") / "messages.tsv"
    path.write_text("label\tmsg\n" + "".join(f"{label}\t{text}\n" for label, text in texts))
    return path


def save_tokenizer(folder: Path, texts: list[tuple[str, str]]) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    inner.train_from_iterator([text for _, text in texts] + ["spam", "ham", "user", "assistant"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", bos_token="<|im_start|>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(str(folder))
    return int(inner.get_vocab_size())


def make_model(folder: Path, texts: list[tuple[str, str]], family: str = "Llama", **sizes: Any) -> Path:
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = save_tokenizer(folder, texts)
    config_class = getattr(transformers, CONFIGS.get(family, f"{family}Config"))
    settings: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256, "head_dim": 16,
        "initializer_range": 0.1, "tie_word_embeddings": True, "eos_token_id": 2, "bos_token_id": 1,
    }  # fmt: skip
    settings = {k: v for k, v in {**settings, **OWN_SIZES.get(family, {})}.items() if v is not None}
    config = config_class(**{**settings, **sizes})
    torch.manual_seed(1)
    model = getattr(transformers, CLASSES.get(family, f"{family}ForCausalLM"))(config)
    model.to(torch.bfloat16).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny", texts)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def data_set(path: Path, **more: Any) -> dict[str, Any]:
    return {
        "name": "messages",
        "source": {"uri": f"file:{path}"},
        "format": "TSV",
        "prompt": {"system": "Spam or ham?", "user": "{msg}"},
        "answer": "{label}",
        "choices": ["ham", "spam"],
        **more,
    }


def plan_of(**fields: Any) -> CompressPlan:
    base: dict[str, Any] = {"name": "tiny", "role": "Large", "maxModelLength": 128}
    base["limits"] = {"memoryBytes": 6 * 2**30, "threads": 1}
    return CompressPlan.model_validate({**base, **fields})


def run_plan(plan: CompressPlan, store: Store, also: list[CompressPlan] | None = None) -> CompressResult:
    return Job(plan, store, Reporter("compress-large", emit=lambda line: None), also or []).run()


# Its server has imported what takes seconds and run nothing, so a child of it is as a new process is.
APART = multiprocessing.get_context("forkserver")
APART.set_forkserver_preload(["torch", "transformers"])


def run_apart(plan: CompressPlan, store: Store) -> CompressResult:
    """Run a plan in a process of its own, whose memory is the plan's and not that of the tests before."""
    with ProcessPoolExecutor(1, mp_context=APART) as pool:
        return pool.submit(run_plan, plan, store).result()


@pytest.fixture
def large(store: Store, model_folder: Path) -> CompressResult:
    """The tiny model, fetched into the test's store."""
    return run_plan(plan_of(source={"uri": f"file:{model_folder}"}), store)


def lean_plan(
    large: CompressResult, data_file: Path, steps: list[dict[str, Any]], **more: Any
) -> CompressPlan:
    fields = {"dataSets": [data_set(data_file)], **more}
    return plan_of(role="Lean", base=large.artifact, teacher=large.artifact, steps=steps, **fields)


class Process:
    """The Job as a process of its own, followed by its progress lines."""

    def __init__(self, plan: CompressPlan, store: Path, folder: Path, *more: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.result = folder / "result.json"
        self.errors = folder / "errors.txt"
        (folder / "plan.json").write_text(plan.to_json())
        command = [sys.executable, "-m", "leanmodel_compression", "--plan", str(folder / "plan.json")]
        command += ["--store", str(store), "--result", str(self.result), *more]
        self.lines: list[ProgressLine] = []
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment()
            )

    def follow(self, until: Any = lambda line: False) -> bool:
        """Read progress until a line fits; False when the process ended before."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line = parse(text)
            if line is not None:
                self.lines.append(line)
                if until(line):
                    return True
        self.process.wait(timeout=60)
        return False

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, keep reading what was still said, and return the exit code."""
        self.process.send_signal(number)
        self.follow()
        return self.process.wait(timeout=60)

    def made(self) -> CompressResult:
        assert self.process.returncode == 0, self.errors.read_text()
        return CompressResult.model_validate(json.loads(self.result.read_text()))


def environment() -> dict[str, str]:
    import leanmodel_api
    import leanmodel_compression
    import leanmodel_store

    rooms = [
        str(Path(room.__file__).parents[1])
        for room in (leanmodel_api, leanmodel_store, leanmodel_compression)
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(rooms)}
