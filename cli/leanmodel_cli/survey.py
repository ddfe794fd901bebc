"""How big the manifest's data set is: what the time to go is estimated from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from leanmodel_api.base import number
from leanmodel_api.errors import LeanModelError
from leanmodel_api.resource import LeanModel
from leanmodel_api.rules import evaluation_data
from leanmodel_api.sources import file_path
from leanmodel_store.datasets import build_examples
from leanmodel_store.tables import read_rows

from .eta import Size


def survey(model: LeanModel, base_dir: str) -> Size:
    """Return the size of the data set; one that is not a file here, or is wrong, gets the default.

    What is wrong with it is said by the Job that reads it.
    """
    data = evaluation_data(model.spec)
    if data is None or data.source.scheme != "file":
        return Size()
    path = Path(base_dir, file_path(data.source.uri))
    try:
        built = build_examples(read_rows(path.read_bytes(), data.format, ""), data, "")
    except (OSError, LeanModelError):
        return Size()
    counts = Counter(example.answer for example in built.examples if example.answer is not None)
    share = number(data.split.train)
    answers = tuple(int(count * share) for count in counts.values()) if data.choices else ()
    return Size(len(built.examples), answers)
