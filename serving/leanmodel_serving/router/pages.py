"""The pages of proofs, out of the mounted store: for people with the internal token, never for everybody."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from .errors import ApiError, not_found
from .http import Answer

PREFIX = "/internal/reports/"
_KEY = re.compile(r"[0-9a-f]{8,64}")
HTML = "text/html; charset=utf-8"
# The page brings its styles and plots along; nothing in it may run or load anything.
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "x-content-type-options": "nosniff",
    "cache-control": "private, max-age=300",
}


async def show_report(folder: Path | None, path: str, method: str, answer: Answer, request_id: str) -> None:
    """Answer with the page of one proof.

    Args:
        folder: where the prove Jobs leave their pages; None where there is no such place.
        path: ``/internal/reports/<key of the proof>``.

    Raises:
        ApiError: 404 where there is no such page, 405 for anything but GET.
    """
    key = path.removeprefix(PREFIX)
    if folder is None or not _KEY.fullmatch(key):
        raise not_found(path)
    if method not in ("GET", "HEAD"):
        raise ApiError(405, f"{PREFIX} takes GET", code="method_not_allowed", headers={"allow": "GET"})
    try:
        page = await asyncio.to_thread((folder / f"{key}.html").read_bytes)
    except OSError:
        raise ApiError(
            404, f"the page of proof {key} is not in the store (any more)", code="report_not_found"
        ) from None
    await answer.whole(200, page, {**_HEADERS, "x-leanmodel-request-id": request_id}, HTML)
