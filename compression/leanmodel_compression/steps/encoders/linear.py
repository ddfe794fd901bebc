"""Linear: TF-IDF of words and their n-grams with logistic regression, trained in place of a smaller encoder.

What it learns is the baseline that every report holds a lean model against. Where that is good enough it is the
cheapest lean model there is: megabytes, and no layers to compute. Nothing of the large model goes into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.classification import TASK
from leanmodel_api.errors import Issue

from ... import hf, memory
from ...classifiers import linear, onnx_file, rows
from ...shapes import ModelShape
from .. import training
from ..protocol import Outcome, Place, StepError, Task, Work
from .common import EncoderStep, encoder

# What scikit-learn, its solver and the graph's library hold resident.
LIBRARIES_BYTES = 50 * memory.MIB
# Bytes of a stored entry of a sparse matrix, of which solver and splits hold copies.
ENTRY_BYTES = 12 * 4
# The largest difference of a logit between scikit-learn and the file, as a share of the largest logit.
TOLERANCE = 1e-3


class LinearTraining(EncoderStep):
    """Trains and writes the file that ONNX Runtime serves, in one go: it takes seconds."""

    name = "Linear"
    libraries = ("scikit-learn", "tokenizers", "onnx", "onnxruntime")

    def data_set(self, spec: Any) -> tuple[bool, str | None]:
        """It learns from the train part, and is tuned on the validation part."""
        return True, spec.data_set

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """Everything but the data set's name."""
        own = spec.model_dump(mode="json", exclude={"type", "data_set"}, exclude_none=True)
        return {**own, "task": TASK}

    def issues(self, task: Task) -> list[Issue]:
        """Check that there is something to learn and to tell apart."""
        train = task.rows.train if task.rows is not None else ()
        if len(train) < training.LEAST_ROWS:
            found = f"the train part has {len(train)} rows with an answer, at least {training.LEAST_ROWS} are needed"
            return [Issue(f"{task.field}.dataSet", found, "give more rows, or a larger split.train")]
        if len({row.ids[-1] for row in train}) < 2:
            found = f"all {len(train)} rows of the train part have one label"
            return [Issue(f"{task.field}.dataSet", found, "give rows of at least two labels")]
        if task.spec.strength is not None and number(task.spec.strength) <= 0:
            return [Issue(f"{task.field}.strength", f"found {task.spec.strength}", "write a number above 0")]
        return []

    def after(self, task: Task) -> ModelShape:
        """As many features as the texts could have at most."""
        words = _words(task)
        most = min(task.spec.max_features, words * task.spec.ngrams)
        shape = encoder(task.shape)
        return linear.shape(most, most, rows.label_order(shape.labels, task.labels), shape.positions)

    def memory(self, task: Task) -> int:
        """The matrix of words, the coefficients, and the libraries."""
        entries, after = _words(task) * task.spec.ngrams, self.after(task)
        dense = 8 * 6 * after.parameters
        return int(memory.PROCESS_BYTES + LIBRARIES_BYTES + ENTRY_BYTES * entries + dense)

    def disk(self, task: Task) -> int:
        """Coefficients, n-grams and words."""
        return 4 * self.after(task).parameters + 80 * self.after(task).hidden

    def work(self, task: Task) -> Work:
        """Six fits over the matrix, some dozens of passes each."""
        return Work(bytes=12.0 * 6 * 60 * _words(task) * task.spec.ngrams, seconds=4.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Fit, write, and hold the file's answers against scikit-learn's."""
        assert task.rows is not None
        spec, shape = task.spec, encoder(task.shape)
        labels = rows.label_order(shape.labels, task.labels)
        place.progress(0, 2, "fitting")
        train, held = linear.labelled(task.rows.train), linear.labelled(task.rows.validation)
        strength = None if spec.strength is None else number(spec.strength)
        model = linear.fit(train, held, len(labels), spec.ngrams, spec.max_features, strength, task.seed)
        place.progress(1, 2, "checking")
        linear.write(model, place.target, labels, shape.positions)
        session, words = onnx_file.session(place.target / onnx_file.NAME), linear.load_words(place.target)
        apart = linear.difference(model, session, words, [text for text, _ in (*train, *held)][:256])
        if apart > TOLERANCE:
            found = f"the file's logits differ from scikit-learn's by {apart:.2g} of the largest"
            raise StepError(Issue(task.field, found, "report this"))
        hf.tidy(place.target, "float32")
        place.progress(2, 2, "")
        after = linear.shape(len(model.ngrams), words.size, labels, shape.positions)
        return Outcome(
            1,
            f"TF-IDF of up to {spec.ngrams} words, {len(model.ngrams)} features, logistic regression, "
            f"strength {model.strength:g}, class weights {model.weights or 'none'}, {len(train)} rows",
            None,
            {"largestLogitDifference": apart},
            after,
        )


def _words(task: Task) -> int:
    """Return the words of all rows at most."""
    train = task.rows.train if task.rows is not None else ()
    return sum(1 + len(getattr(row, "text", "")) // 2 for row in train)
