"""The one door to a teacher: nothing else in this room opens a connection to a model of somebody else's.

It fails closed: without the permission ``Allowed`` there is no client. No redirect is followed and no proxy of the
environment used, so that a prompt reaches the declared address alone. Neither the key nor a prompt's text is in any
message.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import json
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from leanmodel_api.base import seconds
from leanmodel_api.errors import InputError, Issue
from leanmodel_api.teacher import Teacher, TeacherAccess
from leanmodel_api.teacher_rules import FIELD, access_issues

from .book import Answer

KEY_FIELD = f"{FIELD}.external.apiKeySecret"
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")
# Turned away before any work: not charged. Every other 5xx may come after it.
TURNED_AWAY = {408, 409, 425, 429, 503}
REFUSED = {400, 413, 422}
MOST_BYTES = 16 * 2**20
LONGEST_WORDS = 300
NEWER_LIMIT = "max_completion_tokens"


@dataclass(frozen=True)
class Answered:
    """An answer; ``counted`` says whether the provider told how many tokens it charges."""

    answer: Answer
    counted: bool


@dataclass(frozen=True)
class Refused:
    """The provider will not answer this prompt (HTTP 400, 413, 422); it is not charged."""

    words: str


@dataclass(frozen=True)
class Again:
    """No answer, but there may be one later.

    Attributes:
        words: what happened.
        charged: whether the call may be charged all the same.
        wait: seconds that the provider asks to wait, None where it does not say.
        at_once: nothing is to be waited for: the next try is another one.
    """

    words: str
    charged: bool
    wait: float | None = None
    at_once: bool = False


def read_key(teacher: Teacher, file: Path | None) -> str:
    """Return the provider's key, empty where it wants none.

    Args:
        teacher: it says whether there is one.
        file: where the key lies.

    Raises:
        InputError: it is declared and not there, or cannot be one; the message holds nothing of it.
    """
    secret = teacher.external.api_key_secret
    if secret is None:
        return ""
    advice = f"put the provider's key into Secret {secret} under apiKey (with the command leanmodel: the file secrets/{secret}/apiKey)"
    if file is None:
        raise InputError(Issue(KEY_FIELD, f"found {secret}, and the Job was given no key", advice))
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = type(error).__name__
        raise InputError(
            Issue(KEY_FIELD, f"found {secret}, whose key cannot be read ({why})", advice)
        ) from None
    if not _KEY.fullmatch(key):
        raise InputError(
            Issue(KEY_FIELD, f"found {secret}, whose key is empty, or holds spaces or line breaks", advice)
        )
    return key


class Provider:
    """Asks the teacher, where that is allowed."""

    def __init__(self, access: TeacherAccess | None, place: str, key: str):
        """Open nothing yet.

        Args:
            access: the permission, and whom it is for.
            place: of a step that learns, for the message.
            key: sent as a bearer token; empty for none.

        Raises:
            InputError: nothing may be asked.
        """
        if issues := access_issues(access, [place]):
            raise InputError(issues)
        assert access is not None
        self.teacher, self._key = access.teacher, key
        self.limit_name = "max_tokens"
        self._timeout = seconds(self.teacher.timeout)
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self._timeout, connect=min(10.0, self._timeout)),
            limits=httpx.Limits(max_connections=self.teacher.concurrency),
            verify=_trusted(),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask(self, body: dict[str, Any]) -> Answered | Refused | Again:
        """Send one request, once.

        Args:
            body: of ``/chat/completions``.

        Raises:
            InputError: no request can be answered: wrong key, address or model, or the provider's own quota is used up.
        """
        url = self.teacher.external.base_url.rstrip("/") + "/chat/completions"
        try:
            async with asyncio.timeout(self._timeout), self._client.stream("POST", url, json=body) as reply:
                raw = await _read(reply)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Again(f"no connection ({type(error).__name__}: {error})", charged=False)
        except (httpx.HTTPError, TimeoutError) as error:
            return Again(f"no answer ({type(error).__name__})", charged=True)
        content = _object(raw)
        if reply.status_code == 200:
            return _answered(content)
        return self._failed(reply, content, body)

    def _failed(
        self, reply: httpx.Response, content: dict[str, Any], body: dict[str, Any]
    ) -> Refused | Again:
        status, code = reply.status_code, _code(content)
        words = f"HTTP {status}{self._words(content, body)}"
        external = self.teacher.external
        if status in (401, 403):
            found = f"{external.base_url} does not accept the key ({words})"
            named = external.api_key_secret
            advice = f"put a valid key into Secret {named}" if named else "name the Secret of the key"
            raise InputError(Issue(KEY_FIELD, found, advice))
        if status == 402 or code == "insufficient_quota":
            raise InputError(
                Issue(
                    KEY_FIELD, f"the provider's own quota for this key is used up ({words})", "raise it there"
                )
            )
        if status == 429 or status in TURNED_AWAY:
            return Again(words, charged=False, wait=_retry_after(reply))
        if status >= 500:
            return Again(words, charged=True, wait=_retry_after(reply))
        if status in REFUSED:
            if NEWER_LIMIT in words and NEWER_LIMIT not in body:
                self.limit_name = NEWER_LIMIT
                return Again(words, charged=False, at_once=True)
            return Refused(words)
        found = f"{external.base_url} answered {words} for model {external.model!r}"
        raise InputError(Issue(f"{FIELD}.external", found, "correct baseUrl or model"))

    def _words(self, content: dict[str, Any], body: dict[str, Any]) -> str:
        """Return the provider's own words on an error, without the key and what it repeats of a prompt."""
        error = content.get("error", content)
        words = str(error.get("message", "") if isinstance(error, dict) else error)
        hidden = [self._key, *(message["content"] for message in body["messages"])]
        for text in sorted(filter(None, hidden), key=len, reverse=True):
            words = words.replace(text, "[…]")
        return f": {' '.join(words.split())[:LONGEST_WORDS]}" if words else ""


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Return whom TLS trusts; it takes a moment to read."""
    return httpx.create_ssl_context(trust_env=False)


async def _read(reply: httpx.Response) -> bytes:
    data = b""
    async for part in reply.aiter_bytes():
        data += part
        if len(data) > MOST_BYTES:
            raise httpx.ReadError("too long an answer")
    return data


def _object(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _code(content: dict[str, Any]) -> str:
    error = content.get("error")
    return str(error.get("code")) if isinstance(error, dict) else ""


def _answered(content: dict[str, Any]) -> Answered | Again:
    """Return the answer of a reply in OpenAI's form; what is not in it was sent, and may be charged."""
    try:
        choice = content["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (KeyError, IndexError, TypeError):
        return Again("a reply that is no chat completion", charged=True)
    usage = content.get("usage")
    counts = [
        usage.get(name) if isinstance(usage, dict) else None
        for name in ("prompt_tokens", "completion_tokens")
    ]
    counted = all(isinstance(count, int) and count >= 0 for count in counts)
    tokens = counts if counted else [0, 0]
    answer = Answer(
        text if isinstance(text, str) else "", str(finish or "stop"), *(int(count or 0) for count in tokens)
    )
    return Answered(answer, counted)


def _retry_after(reply: httpx.Response) -> float | None:
    """Return the seconds that a reply asks to wait, given as such or as a date."""
    text = reply.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
