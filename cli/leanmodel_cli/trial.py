"""A first request to try, from the manifest's own data: the first row, as a client would send it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

from leanmodel_api.classification import task_of
from leanmodel_api.resource import LeanModel
from leanmodel_api.rules import evaluation_data
from leanmodel_api.sources import file_path

_LONG = 200


def trial(model: LeanModel, base_dir: str) -> str:
    """Return a request's body to try, without the model's name, as JSON that may stand between single quotes.

    A chat has ``messages``, a raw prompt ``prompt``, an encoder's text ``input``. A prompt's own words stay as they
    are: a certificate speaks of no other. A file that cannot be read makes a general request.
    """
    data = evaluation_data(model.spec)
    values: dict[str, str] = {}
    if data is not None and data.source.scheme == "file":
        path = Path(base_dir, file_path(data.source.uri))
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                values = _first_row(data.format, list(itertools.islice(file, 3)))
        except OSError:
            values = {}  # the Job that reads it says what is wrong
    template = (data.prompt.user or data.prompt.text or "Hello") if data is not None else "Hello"
    text = re.sub(
        r"{([A-Za-z_][A-Za-z0-9_]*)}", lambda match: _short(values.get(match[1], "Hello")), template
    )
    body: dict[str, object]
    if task_of(model.spec) is not None:
        body = {"input": text}
    elif data is not None and data.prompt.text is not None:
        body = {"prompt": text}
    else:
        system = data.prompt.system if data is not None else None
        first = [{"role": "system", "content": system}] if system else []
        body = {"messages": [*first, {"role": "user", "content": text}]}
    return json.dumps(body).replace("'", "\\u0027")


def _short(value: str) -> str:
    """Return a value of a row as it can be read in a command."""
    return re.sub(r"['\"\\\n]", " ", value)[:_LONG].strip()


def _first_row(form: str, head: list[str]) -> dict[str, str]:
    if len(head) < 2:
        return {}
    if form == "JSONL":
        try:
            return {key: str(value) for key, value in json.loads(head[0]).items()}
        except (ValueError, AttributeError):
            return {}
    separator = "\t" if form == "TSV" else ","
    names = head[0].rstrip("\n").split(separator)
    return (
        dict(zip(names, head[1].rstrip("\n").split(separator), strict=False))
        if form in ("TSV", "CSV")
        else {"text": head[0]}
    )
