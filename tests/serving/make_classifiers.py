"""Write tiny encoders as their engine gets them: random classifiers, random sentence encoders, a linear model.

Run under .venv-compression. Usage: make_classifiers.py FOLDER; it becomes FOLDER/large-float, FOLDER/lean-int8 and so on.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel

from leanmodel_compression.classifiers import linear, onnx_file
from leanmodel_compression.classifiers.pooling import Pooling

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
    "you",
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
]


def tokenizer_in(folder: Path) -> tuple[Tokenizer, int]:
    folder.mkdir(parents=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer, len(vocabulary)


def make(folder: Path, layers: int, int8: bool) -> None:
    tokenizer, words = tokenizer_in(folder)
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=words, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.3, id2label={0: "ham", 1: "spam", 2: "news"},
        label2id={"ham": 0, "spam": 1, "news": 2}, pad_token_id=0,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.bert.encoder.layer = model.bert.encoder.layer[:layers]
    model.config.num_hidden_layers = layers
    path = folder / onnx_file.NAME
    if int8:
        onnx_file.export(model, path.with_suffix(".float"))
        onnx_file.quantise(path.with_suffix(".float"), path)
        path.with_suffix(".float").unlink()
    else:
        onnx_file.export(model, path)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    texts = ["win free cash now", "hello", "see you later home"]
    ids = tokenizer.encode_batch(texts)
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([one.ids])).logits[0].tolist() for one in ids]
    (folder / "expected.json").write_text(json.dumps(dict(zip(texts, logits, strict=True))))


def make_embedder(folder: Path, layers: int, int8: bool) -> None:
    """An encoder whose vectors are the mean of its states, scaled to length 1."""
    tokenizer, words = tokenizer_in(folder)
    torch.manual_seed(6)
    config = BertConfig(vocab_size=words, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2, max_position_embeddings=64, initializer_range=0.3, pad_token_id=0)  # fmt: skip
    model, how, path = BertModel(config).eval(), Pooling("mean", True), folder / onnx_file.NAME
    onnx_file.export(model, path.with_suffix(".float") if int8 else path, how)
    if int8:
        onnx_file.quantise(path.with_suffix(".float"), path)
        path.with_suffix(".float").unlink()
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    expected = {}
    for text in ("win free cash now", "hello"):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            states = model(input_ids=ids).last_hidden_state
        expected[text] = how.of(states, torch.ones_like(ids))[0].tolist()
    (folder / "expected.json").write_text(json.dumps(expected))


def make_linear(folder: Path) -> None:
    """A linear model of the same three labels."""
    folder.mkdir(parents=True)
    kinds = {0: "hello lunch later", 1: "win free cash", 2: "home thanks see"}
    rows = [(f"{words} {more}", label) for label, words in kinds.items() for more in WORDS]
    model = linear.fit(rows, [], 3, 2, 1000, None, 0)
    linear.write(model, folder, ("ham", "spam", "news"), 64)
    texts = ["win free cash now", "hello", ""]
    (folder / "expected.json").write_text(json.dumps(dict(zip(texts, model.logits(texts).tolist(), strict=True))))  # fmt: skip


def main() -> None:
    target = Path(sys.argv[1])
    building = target.with_name(f".{target.name}")
    shutil.rmtree(building, ignore_errors=True)
    make(building / "large-float", 4, int8=False)
    make(building / "lean-int8", 2, int8=True)
    make_embedder(building / "vectors-float", 2, int8=False)
    make_embedder(building / "vectors-int8", 2, int8=True)
    make_linear(building / "lean-linear")
    building.rename(target)


if __name__ == "__main__":
    main()
