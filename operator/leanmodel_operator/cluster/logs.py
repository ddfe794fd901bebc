"""Logs: one JSON object a line, with the LeanModel's name where a line is about one."""

from __future__ import annotations

import datetime
import json
import logging
import sys


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time, level, logger, message, leanmodel, error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname, "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        name = getattr(record, "leanmodel", None)
        if name is not None:
            line["leanmodel"] = str(name)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(level: str) -> None:
    """Send all logs to standard error as JSON; libraries speak up from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("leanmodel_operator").setLevel(level)
    # It warns that signals do not reach it in its thread; they reach us.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
