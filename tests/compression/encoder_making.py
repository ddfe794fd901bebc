"""Tiny encoders of every family, a data set for them, and plans over both."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from conftest import data_set, plan_of

from leanmodel_api.plan import CompressPlan, CompressResult

FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {},
    "DistilBert": {},
    "Albert": {"embedding_size": 16, "classifier_dropout_prob": 0.1},
    "MobileBert": {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    "SqueezeBert": {"embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2, "intermediate_groups": 2, "output_groups": 2},
}  # fmt: skip
TASK = "text-classification"


def vocabulary(texts: list[tuple[str, str]], special: list[str], size: int) -> list[str]:
    """Return WordPiece's tokens: every letter, first and later ones, and then the most frequent words.

    WordPieceTrainer numbers its tokens by the order of a hash map, other in each process, so that what is made
    with them cannot be told again.
    """
    words = Counter(word for _, text in texts for word in text.split())
    letters = sorted({letter for word in words for letter in word})
    whole = sorted(set(words) - set(letters), key=lambda word: (-words[word], word))
    return [*special, *letters, *("##" + letter for letter in letters), *whole][:size]


def save_tokenizer(folder: Path, texts: list[tuple[str, str]]) -> int:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = {token: at for at, token in enumerate(vocabulary(texts, special, 120))}
    inner = Tokenizer(models.WordPiece(vocab=pieces, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=inner, **dict(zip(names, special, strict=True)), model_max_length=64
    ).save_pretrained(str(folder))
    return int(inner.get_vocab_size())


def make_encoder(
    folder: Path, texts: list[tuple[str, str]], family: str = "Bert", *, layers: int = 2, labels: tuple[str, ...] = ()
) -> Path:  # fmt: skip
    """Write a random encoder, with a head where labels are given."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
    }
    if family == "DistilBert":
        sizes = {"dim": 32, "hidden_dim": 64, "n_layers": layers, "n_heads": 2}
    settings = {
        **sizes, **FAMILIES[family], "vocab_size": save_tokenizer(folder, texts), "max_position_embeddings": 64,
        "initializer_range": 0.1, "pad_token_id": 0,
    }  # fmt: skip
    named: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {n: i for i, n in enumerate(labels)},
    }
    config = getattr(transformers, f"{family}Config")(**settings, **(named if labels else {}))
    torch.manual_seed(1)
    kind = "ForSequenceClassification" if labels else "Model"
    getattr(transformers, f"{family}{kind}")(config).save_pretrained(str(folder))
    return folder


def sentence_encoder(folder: Path, texts: list[tuple[str, str]], mode: str = "mean", normalize: bool = True, **more: Any) -> Path:  # fmt: skip
    """Write a random encoder as sentence-transformers stores one."""
    make_encoder(folder, texts, layers=4, **more)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]  # fmt: skip
    modules = [{"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"} for at, (path, kind) in enumerate(kinds)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    settings = {"word_embedding_dimension": 32, "pooling_mode_cls_token": mode == "cls", "pooling_mode_mean_tokens": mode == "mean", "pooling_mode_max_tokens": mode == "max"}  # fmt: skip
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder


def texts_set(path: Path, **more: Any) -> dict[str, Any]:
    return data_set(path, prompt={"text": "{msg}"}, **more)


def vectors_fields(data_file: Path) -> dict[str, Any]:
    """Return what plans over a sentence encoder have in common: texts alone, and the task."""
    data = {name: value for name, value in texts_set(data_file).items() if name not in ("answer", "choices")}
    return {"dataSets": [data], "maxModelLength": 64, "task": "text-embedding"}


def large_plan(folder: Path, data_file: Path, **more: Any) -> CompressPlan:
    tuned = {"epochs": "6", "learningRate": "0.01", "batchSize": 16, "maxLength": 32, "checkpointSteps": 4}
    fields = {
        "finetune": tuned,
        "dataSets": [texts_set(data_file)],
        "maxModelLength": 64,
        "task": TASK,
        **more,
    }
    return plan_of(source={"uri": f"file:{folder}"}, **fields)


def student_plan(
    large: CompressResult, data_file: Path, steps: list[dict[str, Any]], **more: Any
) -> CompressPlan:
    fields = {"dataSets": [texts_set(data_file)], "maxModelLength": 64, "task": TASK, **more}
    return plan_of(role="Lean", base=large.artifact, teacher=large.artifact, steps=steps, **fields)


def early_plan(data_file: Path, steps: list[dict[str, Any]]) -> CompressPlan:
    """Return the lean model's plan as it is while there is no large model yet: it can be checked, not run."""
    return plan_of(role="Lean", steps=steps, dataSets=[texts_set(data_file)], maxModelLength=64, task=TASK)
