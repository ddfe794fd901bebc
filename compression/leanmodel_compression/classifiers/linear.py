"""A linear classifier of TF-IDF features as an ONNX file that takes an encoder's inputs.

Words are cut by the ``tokenizer.json`` that stands beside the file, in training as in serving, so that both see the
same ones. The graph counts n-grams of their numbers (ONNX's TfIdfVectorizer), and does what scikit-learn's does with
counts: (1 + ln tf) · idf, each text scaled to length 1; then the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import hf
from . import onnx_file
from .shapes import LINEAR, EncoderShape

TOKENIZER = "tokenizer.json"
PAD, UNKNOWN, BEGIN = 0, 1, 2
SPECIAL = ("[PAD]", "[UNK]", "[BOS]")
"""A text begins with [BOS], so that none is empty; it stands in no n-gram that is known."""
STRENGTHS = (1.0, 10.0, 100.0)
WEIGHTS = (None, "balanced")
# Rows at least to choose a strength by.
LEAST_HELD = 20
NEVER = -30.0
"""Logit of a label that no row of the train part has."""
IR_VERSION, OPSET = 10, 18

Labelled = tuple[str, int]
NGram = tuple[str, ...]


@dataclass(frozen=True)
class Linear:
    """A fitted model.

    Attributes:
        ngrams: the features, in their order.
        idf: of each feature (features).
        weights_of: coefficients (features × labels).
        bias: (labels).
        strength: inverse of the penalty's weight, as scikit-learn's ``C``.
        weights: class weights, ``balanced`` or None.
        logits: scikit-learn's own answer to texts (texts × labels).
    """

    ngrams: tuple[NGram, ...]
    idf: Any
    weights_of: Any
    bias: Any
    strength: float
    weights: str | None
    logits: Callable[[Sequence[str]], Any]


class Words:
    """Cuts texts into words, and numbers those that it knows."""

    def __init__(self, inner: Any) -> None:
        """Take a tokenizer of the ``tokenizers`` library."""
        self._inner = inner

    @property
    def size(self) -> int:
        """Numbers in all."""
        return int(self._inner.get_vocab_size())

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return a text's numbers, as the engine makes them."""
        return list(self._inner.encode(text, add_special_tokens=add_special_tokens).ids)

    def cut(self, text: str) -> list[str]:
        """Return a text's words."""
        normal = self._inner.normalizer.normalize_str(text)
        return [word for word, _ in self._inner.pre_tokenizer.pre_tokenize_str(normal)]


def words_of(known: Sequence[str]) -> Any:
    """Return a tokenizer that knows these words: runs of letters, digits and underscores, in lower case."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *known))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[UNKNOWN]))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+"), behavior="removed", invert=True)
    begin = SPECIAL[BEGIN]
    inner.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, BEGIN)]
    )
    return inner


def load_words(folder: Path) -> Words:
    """Return the tokenizer of a folder."""
    from tokenizers import Tokenizer

    return Words(Tokenizer.from_file(str(folder / TOKENIZER)))


def labelled(rows: Sequence[Any]) -> list[Labelled]:
    """Return the texts of rows with their label's number."""
    return [(row.text, row.ids[-1]) for row in rows]


def fit(
    train: Sequence[Labelled], held: Sequence[Labelled], labels: int, longest: int, most: int,
    strength: float | None, seed: int,
) -> Linear:  # fmt: skip
    """Return the model.

    Args:
        train: what is learned.
        held: by which strength and class weights are chosen, by balanced accuracy; the first of equals is taken.
        labels: how many there are; some may have no row.
        longest: words of an n-gram at most.
        most: features at most: the commonest.
        strength: as scikit-learn's C. Default: chosen.
        seed: of the solver.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    cutter = Words(words_of(()))

    def grams(text: str) -> list[NGram]:
        words = cutter.cut(text)
        return [tuple(words[at : at + n]) for n in range(1, longest + 1) for at in range(len(words) - n + 1)]

    features = TfidfVectorizer(analyzer=grams, sublinear_tf=True, max_features=most)
    matrix = features.fit_transform([text for text, _ in train])
    wanted = np.array([label for _, label in train])
    strengths = STRENGTHS if strength is None else (strength,)
    tries = [(one, weights) for one in strengths for weights in WEIGHTS]
    if len(held) < LEAST_HELD:
        tries = [(strength or STRENGTHS[1], None)]
    looked = features.transform([text for text, _ in held]) if held else None
    best: tuple[float, Any, float, str | None] | None = None
    for one, weights in tries:
        model = _regression(matrix, wanted, one, weights, seed)
        value = 0.0 if looked is None else _balanced(model.predict(looked), [label for _, label in held])
        if best is None or value > best[0]:
            best = (value, model, one, weights)
    assert best is not None
    _, model, chosen, weights = best
    weights_of = np.zeros((matrix.shape[1], labels), dtype=np.float32)
    bias = np.full(labels, NEVER, dtype=np.float32)
    # Of two classes scikit-learn keeps the second one's logit alone.
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        coefficients = np.vstack([np.zeros_like(coefficients[0]), coefficients[0]])
        intercept = np.array([0.0, intercept[0]])
    weights_of[:, model.classes_], bias[model.classes_] = coefficients.T, intercept

    def logits(texts: Sequence[str]) -> Any:
        return np.asarray(features.transform(texts) @ weights_of.astype(np.float64)) + bias

    names = tuple(features.get_feature_names_out())
    return Linear(names, features.idf_.astype(np.float32), weights_of, bias, chosen, weights, logits)


def _regression(matrix: Any, wanted: Any, strength: float, weights: str | None, seed: int) -> Any:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    # liblinear is some fifty times faster on many sparse columns, and knows two classes only.
    solver = "liblinear" if len(np.unique(wanted)) == 2 else "lbfgs"
    model = LogisticRegression(
        C=strength, class_weight=weights, max_iter=1000, random_state=seed, solver=solver
    )
    return model.fit(matrix, wanted)


def _balanced(found: Sequence[int], wanted: Sequence[int]) -> float:
    """Return the mean over labels of the share of their rows that are right."""
    shares = []
    for label in sorted(set(wanted)):
        mine = [one == label for one, other in zip(found, wanted, strict=True) if other == label]
        shares.append(sum(mine) / len(mine))
    return sum(shares) / len(shares)


def write(model: Linear, folder: Path, labels: Sequence[str], positions: int) -> None:
    """Write graph, words and configuration; equal models give equal bytes."""
    known = sorted({word for gram in model.ngrams for word in gram})
    words_of(known).save(str(folder / TOKENIZER))
    numbers = {word: number for number, word in enumerate(known, start=len(SPECIAL))}
    (folder / onnx_file.NAME).write_bytes(graph(model, numbers))
    named = {str(index): label for index, label in enumerate(labels)}
    hf.write_json(
        folder / hf.CONFIG,
        {
            "model_type": LINEAR,
            "architectures": ["TfidfLogisticRegression"],
            "id2label": named,
            "label2id": {label: index for index, label in enumerate(labels)},
            "features": len(model.ngrams),
            "vocab_size": len(SPECIAL) + len(known),
            "max_position_embeddings": positions,
            "pad_token_id": PAD,
        },
    )


def graph(model: Linear, numbers: dict[str, int]) -> bytes:
    """Return the ONNX file: ``input_ids`` and ``attention_mask`` (texts × words) to ``logits`` (texts × labels)."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    longest = max(len(gram) for gram in model.ngrams)
    pool: list[int] = []
    starts: list[int] = []
    columns: list[int] = []
    for size in range(1, longest + 1):
        starts.append(len(pool))
        for column, gram in enumerate(model.ngrams):
            if len(gram) == size:
                pool += [numbers[word] for word in gram]
                columns.append(column)
    inputs, one = list(onnx_file.INPUTS), "one"
    nodes = [
        # A padded place becomes 0, which is in no n-gram.
        helper.make_node("Mul", inputs, ["words"]),
        helper.make_node(
            "TfIdfVectorizer", ["words"], ["counts"], mode="TF", min_gram_length=1, max_gram_length=longest,
            max_skip_count=0, ngram_counts=starts, ngram_indexes=columns, pool_int64s=pool,
        ),
        helper.make_node("Max", ["counts", one], ["at_least_one"]),
        helper.make_node("Log", ["at_least_one"], ["logs"]),
        helper.make_node("Min", ["counts", one], ["there"]),
        helper.make_node("Add", ["there", "logs"], ["sublinear"]),
        helper.make_node("Mul", ["sublinear", "idf"], ["weighted"]),
        helper.make_node("ReduceL2", ["weighted", "axis"], ["length"], keepdims=1),
        helper.make_node("Max", ["length", "tiny"], ["some_length"]),
        helper.make_node("Div", ["weighted", "some_length"], ["features"]),
        helper.make_node("MatMul", ["features", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
    ]  # fmt: skip
    constants = {
        one: np.array(1, np.float32), "tiny": np.array(1e-12, np.float32), "axis": np.array([1], np.int64),
        "idf": model.idf, "weights": model.weights_of, "bias": model.bias,
    }  # fmt: skip
    ints = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "words_of_one"]) for name in inputs
    ]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", len(model.bias)])
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "linear", ints, [out], stored),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
    )  # fmt: skip
    return bytes(made.SerializeToString(deterministic=True))


def difference(model: Linear, session: Any, words: Words, texts: Sequence[str]) -> float:
    """Return the largest difference of a logit between file and scikit-learn, by the largest logit (1 at least)."""
    import numpy as np

    apart, wanted = 0.0, model.logits(texts)
    for text, row in zip(texts, wanted, strict=True):
        ids = np.array([words.encode(text)], dtype=np.int64)
        found = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        apart = max(apart, float(np.abs(found[0] - row).max()))
    return apart / max(1.0, float(np.abs(wanted).max()))


def shape(features: int, words: int, labels: tuple[str, ...], positions: int) -> EncoderShape:
    """Return the sizes of a linear model: features, and numbers of its words."""
    return EncoderShape(
        architecture="TfidfLogisticRegression", layers=1, hidden=features, intermediate=features, heads=1,
        kv_heads=1, head_dim=features, vocabulary=words, tied=False, positions=positions, family=LINEAR,
        labels=labels, embedding_weights=features, head_weights=features * len(labels),
    )  # fmt: skip
