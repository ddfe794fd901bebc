"""Names of files inside artifacts and sources: relative, plain, and never leaving their folder."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def fault(name: str) -> str | None:
    """Return in words what is wrong with a relative file name ('/' between parts), or None."""
    if not name:
        return "it is empty"
    if _CONTROL.search(name) or "\\" in name:
        return "it holds control characters or backslashes"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "it is absolute"
    if any(part == ".." for part in name.split("/")):
        return "it leaves its folder through '..'"
    if any(part in ("", ".") for part in name.split("/")):
        return "it has an empty part or a '.'"
    if len(name.encode("utf-8", "surrogatepass")) > 1024 or any(
        len(p.encode("utf-8", "surrogatepass")) > 255 for p in name.split("/")
    ):
        return "it is too long"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "it is not UTF-8"
    return None


def clean(name: str) -> str:
    """Return a path as people write it (``./models/x.gguf``, ``models/``) without empty and '.' parts."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return ("/" if name.startswith("/") else "") + "/".join(parts)


def inside(folder: Path, target: Path) -> bool:
    """Return whether ``target``, links followed, lies in ``folder`` (or is it)."""
    return target.resolve().is_relative_to(folder.resolve())


def base(name: str) -> str:
    """Return the last part of a relative name."""
    return PurePosixPath(name).name


def parent(name: str) -> str:
    """Return a relative name's folder, '' for the top."""
    folder = str(PurePosixPath(name).parent)
    return "" if folder == "." else folder
