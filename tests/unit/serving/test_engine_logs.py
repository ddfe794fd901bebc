"""Serve's log goes on after a library has configured logging for itself."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest

from leanmodel_serving.engines.logs import kept_log

NAME = "test.of.serve"


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[MemoryHandler]:
    """A logger that buffers two records for its file, as Serve's does."""
    made = MemoryHandler(2, flushLevel=logging.CRITICAL, target=logging.FileHandler(tmp_path / "log"))
    logger = logging.getLogger(NAME)
    logger.addHandler(made)
    logger.setLevel(logging.INFO)
    yield made
    logger.removeHandler(made)
    made.close()


def configure() -> None:
    """What vLLM does when it is imported."""
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "loggers": {"a.library": {}}})


def test_lines_reach_the_file_before_and_after(handler: MemoryHandler, tmp_path: Path) -> None:
    logger = logging.getLogger(NAME)
    logger.info("before")
    with kept_log(NAME):
        configure()
        logger.info("meanwhile")
    for number in range(10):
        logger.info("after %d", number)
    assert handler.target is not None and len(handler.buffer) < 2
    lines = (tmp_path / "log").read_text().split("\n")
    assert lines[:3] == ["before", "meanwhile", "after 0"]


def test_without_it_they_pile_up(handler: MemoryHandler) -> None:
    """Else there is nothing to keep, and this module can go."""
    configure()
    for number in range(10):
        logging.getLogger(NAME).info("after %d", number)
    assert handler.target is None and len(handler.buffer) == 10


def test_a_target_that_was_changed_meanwhile_stays_changed(handler: MemoryHandler) -> None:
    other = logging.NullHandler()
    with kept_log(NAME):
        handler.setTarget(other)
    assert handler.target is other
