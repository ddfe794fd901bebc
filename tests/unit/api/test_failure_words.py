"""Of a failed application's message, the exception it ends with is what people see."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.failure import LONGEST, last_words

SERVE = (
    "The deployment failed to start 3 times in a row. This may be due to a problem with its constructor or initial "
    "health check failing. See controller logs for details. Error:\n"
)
FRAMES = """Traceback (most recent call last):
  File "engine.py", line 87, in __init__
    self.engine = AsyncLLM.from_vllm_config(
                  ^^^^^^^^^^^^^^^^^^^^^^^^^^
"""
LINE = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), min_size=1).filter(
    lambda text: text == text.strip() and "Error" not in text and "Exception" not in text
)


def test_the_last_exception_is_told_without_its_stack() -> None:
    first = f"{FRAMES}RuntimeError: Engine core initialization failed.\n\nThe above exception was the direct cause:\n\n"
    message = f"{SERVE}ray::ServeReplica.initialize() (pid=7)\n{first}{FRAMES}RuntimeError: spec.serving.lean.kvCache: found 1Mi\n"
    assert last_words(message) == "RuntimeError: spec.serving.lean.kvCache: found 1Mi"


def test_an_exception_of_several_lines_is_told_whole() -> None:
    message = f"{FRAMES}pydantic_core.ValidationError: 1 error for Settings\nthreads\n  Input should be at least 1\n"
    assert last_words(message) == message[len(FRAMES) :].strip()


def test_words_without_an_exception_stay() -> None:
    assert last_words(" waiting for resources of group lean-1 \n") == "waiting for resources of group lean-1"
    assert last_words("") == ""


@given(
    name=st.sampled_from(["ValueError", "ray.exceptions.RayTaskError", "TimeoutError"]),
    words=LINE,
    depth=st.integers(0, 9),
)
def test_whatever_was_raised_its_words_are_there(name: str, words: str, depth: int) -> None:
    found = last_words(SERVE + FRAMES * depth + f"{name}: {words}\n")
    assert found == f"{name}: {words}"[:LONGEST]
