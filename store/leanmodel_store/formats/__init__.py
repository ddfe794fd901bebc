"""Checks of the files that a model is made of: what each claims to be, it must be. One file per format.

Weights are safetensors or GGUF; whatever could run code when it is loaded is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from leanmodel_api.errors import InputError, one

from .. import names
from . import gguf, pickles, safetensors

Check = Callable[[Path], str | None]
"""Takes a file and returns in words what is wrong with it, or None."""


def _json_object(path: Path) -> str | None:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return f"it is not JSON ({error})"
    return None if isinstance(value, dict | list) else "it holds neither an object nor a list"


def _text(path: Path) -> str | None:
    data = path.read_bytes()
    if b"\0" in data:
        return "it is no text file: it holds zero bytes"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 text (byte {error.start})"
    return None


CHECKS: dict[str, Check] = {
    ".safetensors": safetensors.fault,
    ".gguf": gguf.fault,
    ".json": _json_object,
    ".txt": _text,
    ".jinja": _text,
}
"""By the end of the file's name. A sentencepiece ``.model`` has no further mark than not being a pickle."""


def check(path: Path, name: str, field: str) -> None:
    """Refuse a file that is not what its name says.

    Args:
        path: the file.
        name: its name inside the source, for the message.
        field: the manifest's field of the source.

    Raises:
        InputError: it is a pickle under whatever name, is cut off, or is of another format.
    """
    if problem := pickles.fault(path):
        raise one(InputError, field, f"{name} {problem}", pickles.ADVICE)
    problem_check = CHECKS.get(Path(names.base(name)).suffix.lower())
    if problem_check is not None and (problem := problem_check(path)):
        raise one(InputError, field, f"{name} is damaged: {problem}", "fetch or export the file again")
