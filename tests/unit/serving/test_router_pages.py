"""The pages of proofs: shown to who has the internal token, by their keys, and nothing else of the store is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from router_double import fine, router

KEY = "0123456789abcdef"
TOKEN = {"authorization": "Bearer internal-token"}


@contextlib.asynccontextmanager
async def asked(tmp_path: Path, folder: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    pages = tmp_path / "store" / "reports"
    pages.mkdir(parents=True)
    (pages / f"{KEY}.html").write_text("<h1>Proof</h1>")
    (tmp_path / "store" / "secret.html").write_text("no")
    async with router(tmp_path, fine, reports=pages if folder else None) as setup:
        yield setup.client


def test_a_page_is_shown_to_who_has_the_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with asked(tmp_path) as client:
            answer = await client.get(f"/internal/reports/{KEY}", headers=TOKEN)
            assert (answer.status_code, answer.text) == (200, "<h1>Proof</h1>")
            assert answer.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            for headers in ({}, {"authorization": "Bearer other"}):
                refused = await client.get(f"/internal/reports/{KEY}", headers=headers)
                assert refused.status_code == 401 and "Proof" not in refused.text

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "key",
    ["", "..", "../secret", "%2e%2e/secret", "..%2fsecret", KEY.upper(), f"{KEY}.html", "a" * 16, "x/y"],
)
def test_nothing_else_is(tmp_path: Path, key: str) -> None:
    async def scenario() -> None:
        async with asked(tmp_path) as client:
            answer = await client.get(f"/internal/reports/{key}", headers=TOKEN)
            assert answer.status_code == 404 and "error" in answer.json()

    asyncio.run(scenario())


def test_only_reading_is_allowed_and_only_where_there_is_a_store(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with asked(tmp_path) as client:
            assert (await client.post(f"/internal/reports/{KEY}", headers=TOKEN)).status_code == 405
        (tmp_path / "other").mkdir()
        async with asked(tmp_path / "other", folder=False) as client:
            assert (await client.get(f"/internal/reports/{KEY}", headers=TOKEN)).status_code == 404

    asyncio.run(scenario())
