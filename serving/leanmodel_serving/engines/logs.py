"""Keeps Serve's log alive while a library is imported that configures logging for itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

SERVE_LOGGER = "ray.serve"


@contextmanager
def kept_log(name: str = SERVE_LOGGER) -> Iterator[None]:
    """Give a logger's buffering handlers their targets back afterwards, if something closed them meanwhile.

    ``logging.config.dictConfig``, which vLLM calls when it is imported, closes every handler of the process. A
    buffering handler then has no target: what Serve logs piles up in memory and reaches no file, and a Serve
    controller that starts anew fails to ask the replica where its log is and replaces it, model and all.

    Args:
        name: of the logger.
    """
    handlers = [handler for handler in logging.getLogger(name).handlers if isinstance(handler, MemoryHandler)]
    targets = [handler.target for handler in handlers]
    try:
        yield
    finally:
        for handler, target in zip(handlers, targets, strict=True):
            if handler.target is None:
                handler.setTarget(target)
                handler.flush()
