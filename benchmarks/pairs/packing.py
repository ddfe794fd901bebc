"""A pair's file: its records as JSON lines, gzipped, beside this module."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from leanmodel_api.policy import Record

HERE = Path(__file__).resolve().parent


def write(name: str, records: Iterable[Record]) -> Path:
    """Write the records of a pair in this order; return the file."""
    lines = "".join(
        json.dumps(record.model_dump(mode="json", exclude_none=True), ensure_ascii=False) + "\n"
        for record in records
    )
    out = HERE / f"{name}.jsonl.gz"
    # Without a time in its header the same records give the same file.
    with out.open("wb") as file, gzip.GzipFile("", "wb", mtime=0, fileobj=file) as packed:
        packed.write(lines.encode())
    return out
