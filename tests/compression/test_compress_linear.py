"""The linear model as a lean model: what is trained, what is written, and that the file says what scikit-learn says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Process, run_plan
from encoder_making import early_plan, large_plan, make_encoder, student_plan, texts_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leanmodel_api.errors import InputError
from leanmodel_api.plan import CompressResult
from leanmodel_compression import hf
from leanmodel_compression.classifiers import linear, onnx_file
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.long]
STEP = {"type": "Linear"}


@pytest.fixture(scope="module")
def large(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]], data_file: Path
) -> tuple[Store, CompressResult]:
    """A tiny encoder with a head whose labels stand in another order than the manifest's."""
    folder = make_encoder(tmp_path_factory.mktemp("encoder") / "bert", texts, labels=("spam", "ham"))
    store = Store(tmp_path_factory.mktemp("encoders") / "store")
    return store, run_plan(large_plan(folder, data_file, finetune=None), store)


def test_a_linear_model_is_made_measured_and_whole(
    large: tuple[Store, CompressResult], data_file: Path, tmp_path: Path
) -> None:
    store, big = large
    # A process of its own, so that its memory is the step's and not that of the tests before.
    job = Process(student_plan(big, data_file, [STEP]), store.root, tmp_path / "job")
    job.follow()
    made = job.made()
    assert [step.type for step in made.steps] == ["Linear"]
    figures = made.steps[0].figures
    assert figures["validationAccuracy"] >= 0.9 and figures["largestLogitDifference"] < 1e-5
    folder = store.open(made.artifact).path
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.onnx", "tokenizer.json"]
    assert made.bytes == (folder / onnx_file.NAME).stat().st_size < big.bytes
    assert hf.read_json(folder / hf.CONFIG)["id2label"] == {"0": "spam", "1": "ham"}
    data = student_plan(big, data_file, [STEP]).data_sets[0]
    report = datasets.load(data, Path("."), store).report
    session, words = onnx_file.session(folder / onnx_file.NAME), linear.load_words(folder)
    right = [
        ("spam", "ham")[int(answer(session, [words.encode(str(example.text))])[0].argmax())] == example.answer
        for example in report
    ]
    assert np.mean(right) >= 0.9
    needed = made.steps[0].estimated_memory_bytes
    assert figures["peakAnonymousBytes"] < needed < 3 * made.steps[0].peak_memory_bytes


def test_equal_rows_make_equal_bytes_and_settings_others(
    large: tuple[Store, CompressResult], data_file: Path, tmp_path: Path, texts: list[tuple[str, str]]
) -> None:
    rows = [(text, int(label == "spam")) for label, text in texts]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        model = linear.fit(rows[40:], rows[:40], 2, 2, 100, None, 0)
        linear.write(model, tmp_path / name, ("ham", "spam"), 64)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    store, big = large
    settings = {**STEP, "ngrams": 1, "maxFeatures": 10, "strength": "3"}
    small = run_plan(student_plan(big, data_file, [settings]), store)
    assert "10 features" in small.steps[0].detail and "strength 3" in small.steps[0].detail


def answer(session: Any, ids: list[list[int]]) -> Any:
    width = max(map(len, ids))
    rows = np.array([[*row, *[9] * (width - len(row))] for row in ids], dtype=np.int64)
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in ids], dtype=np.int64)
    return session.run(["logits"], {"input_ids": rows, "attention_mask": mask})[0]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[linear.Linear, Any, linear.Words]:
    """A model of four labels of which one has no row."""
    kinds = ["red green win", "blue sea the sea", "win win the é ñandú", "x"]
    rows = [
        (f"{kinds[at % 3]} {word}", at % 3)
        for at, word in enumerate(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"])
    ]
    model = linear.fit(rows, [], 4, 3, 1000, None, 0)
    folder = tmp_path_factory.mktemp("linear")
    linear.write(model, folder, ("one", "two", "three", "four"), 64)
    return model, onnx_file.session(folder / onnx_file.NAME), linear.load_words(folder)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.sampled_from("WIN winthe éÉñİß_9.,!\n\u0301नम 🙂") | st.characters()),
        min_size=1,
        max_size=4,
    )
)
def test_the_file_says_what_scikit_learn_says_of_any_text_alone_and_in_a_batch(
    three: tuple[linear.Linear, Any, linear.Words], texts: list[str]
) -> None:
    model, session, words = three
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    wanted = model.logits(texts)
    found = answer(session, [words.encode(text) for text in texts])
    assert np.abs(found - wanted).max() < 1e-4
    assert (found.argmax(-1) != 3).all()


def test_one_label_is_refused_before_any_work(
    store: Store, texts: list[tuple[str, str]], data_file: Path, tmp_path: Path
) -> None:
    draw = tmp_path / "messages.tsv"
    rows = [f"{'spam' if at < 2 else 'ham'}\tmessage number {at}" for at in range(40)]
    draw.write_text("label\tmsg\n" + "\n".join(rows) + "\n")
    shares = {"train": "0.3", "validation": "0.1", "fit": "0", "certify": "0", "report": "0.3", "test": "0.3"}
    sets = [texts_set(draw, split={**shares, "seed": 1})]
    plan = large_plan(make_encoder(tmp_path / "bert", texts, labels=("ham", "spam")), draw, finetune=None, dataSets=sets)  # fmt: skip
    later = early_plan(draw, [STEP]).model_copy(update={"data_sets": plan.data_sets})
    train = datasets.load(plan.data_sets[0], Path("."), store).train
    assert {example.answer for example in train} == {"ham"}
    with pytest.raises(InputError, match="rows of the train part have one label"):
        run_plan(plan, store, [later])
