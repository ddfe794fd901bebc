"""The way to the engines, against engines that write bytes as told: kept, closed, broken, slow and odd connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from router_double import run

from leanmodel_serving.router.errors import ApiError
from leanmodel_serving.router.lines import MOST_UNREAD, Lines, place

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
CONNECT_S = 5.0
Says = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Engine:
    """Answers each request by the next of ``says``."""

    says: list[Says]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    reader: asyncio.StreamReader | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections, self.reader = self.connections + 1, reader
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(size))
                await self.says.pop(0)(writer)
        except (asyncio.IncompleteReadError, ConnectionError, IndexError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def engine(*says: Says, keep_s: float = 30.0) -> AsyncIterator[tuple[Engine, Lines]]:
    found = Engine(list(says))
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/large/v1/x"
    lines = Lines({"authorization": "Bearer t"}, keep_s)
    try:
        yield found, lines
    finally:
        await lines.close()
        server.close()


def writes(*parts: bytes, close: bool = False) -> Says:
    async def say(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()
            await writer.wait_closed()

    return say


async def whole(lines: Lines, url: str, body: bytes = b"{}") -> tuple[int, bytes]:
    response = await lines.ask("POST", url, body, {"x-request-id": "r"}, CONNECT_S)
    found = await response.read()
    assert response.at_eof()
    response.release()
    return response.status, found


def test_one_connection_serves_one_request_after_the_other() -> None:
    async def scenario() -> None:
        async with engine(writes(OK), writes(OK), writes(OK)) as (found, lines):
            for _ in range(3):
                assert await whole(lines, found.url, b"asked") == (200, b"{}")
            assert found.connections == 1
            head, _, body = found.requests[2].partition(b"\r\n\r\n")
            told = head.split(b"\r\n")
            assert told[0] == b"POST /large/v1/x HTTP/1.1" and body == b"asked"
            assert told[1:] == [
                f"host: {found.url.split('/')[2]}".encode(), b"authorization: Bearer t", b"x-request-id: r", b"content-length: 5",
            ]  # fmt: skip

    run(scenario)


def test_requests_at_once_have_connections_of_their_own() -> None:
    async def scenario() -> None:
        async with engine(*[writes(OK)] * 8) as (found, lines):
            answers = await asyncio.gather(*(whole(lines, found.url) for _ in range(4)))
            assert answers == [(200, b"{}")] * 4 and found.connections == 4
            await asyncio.gather(*(whole(lines, found.url) for _ in range(4)))
            assert found.connections == 4

    run(scenario)


def test_one_that_has_waited_too_long_is_not_used() -> None:
    async def scenario() -> None:
        async with engine(writes(OK), writes(OK), keep_s=-1.0) as (found, lines):
            await whole(lines, found.url)
            await whole(lines, found.url)
            assert found.connections == 2

    run(scenario)


def test_a_connection_that_the_engine_closes_is_not_used_again() -> None:
    async def scenario() -> None:
        bye = OK.replace(b"content-length", b"connection: close\r\ncontent-length")
        async with engine(writes(bye), writes(OK, close=True), writes(OK)) as (found, lines):
            for _ in range(2):
                await whole(lines, found.url)
            await asyncio.sleep(0.05)  # its end is on its way: whether it came already makes no difference
            for attempt in range(2):
                try:
                    assert await whole(lines, found.url) == (200, b"{}")
                    break
                except aiohttp.ServerDisconnectedError:
                    assert attempt == 0

    run(scenario)


def test_a_connection_closed_before_any_answer_is_told_from_one_closed_in_the_middle() -> None:
    half = OK.replace(b"content-length: 2", b"content-length: 20")
    chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"

    async def scenario() -> None:
        async with engine(writes(close=True)) as (found, lines):
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await whole(lines, found.url)
        for cut in (half, chunk):
            async with engine(writes(cut, close=True)) as (found, lines):
                response = await lines.ask("POST", found.url, b"", {}, CONNECT_S)
                assert response.status == 200
                assert await response.readany() == b"{}"
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.readany()
                response.close()

    run(scenario)


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def scenario() -> None:
        async with engine(writes(b"HTTP/1.1 200 OK\r\n\r\nall ", b"of it", close=True)) as (found, lines):
            assert await whole(lines, found.url) == (200, b"all of it")

    run(scenario)


def test_interim_answers_are_passed_over() -> None:
    async def scenario() -> None:
        hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        async with engine(writes(hints, OK)) as (found, lines):
            response = await lines.ask("POST", found.url, b"", {}, CONNECT_S)
            assert response.status == 200 and "link" not in response.headers
            assert response.content_type == "application/json" and await response.read() == b"{}"

    run(scenario)


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"]
)
def test_what_is_no_http_is_an_error(said: bytes) -> None:
    async def scenario() -> None:
        async with engine(writes(said)) as (found, lines):
            with pytest.raises(aiohttp.ClientPayloadError):
                await whole(lines, found.url)

    run(scenario)


def test_what_is_said_after_an_answer_is_nobody_elses_answer() -> None:
    async def scenario() -> None:
        for said in (writes(OK + OK), writes(OK, OK)):
            async with engine(said, writes(OK.replace(b"{}", b"[]"))) as (found, lines):
                assert await whole(lines, found.url) == (200, b"{}")
                # What is too much may come before or after the connection went back; it is never an answer.
                for attempt in range(2):
                    try:
                        assert await whole(lines, found.url) == (200, b"[]")
                        break
                    except (aiohttp.ClientError, ConnectionError):
                        assert attempt == 0
                        found.says.append(writes(OK.replace(b"{}", b"[]")))

    run(scenario)


def test_who_goes_away_hangs_up() -> None:
    async def waits(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with engine(waits) as (found, lines):
            asked = asyncio.ensure_future(whole(lines, found.url))
            while not found.requests:
                await asyncio.sleep(0.01)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert found.reader is not None
            assert await found.reader.read() == b""  # its end, and nothing more

    run(scenario)


def test_an_engine_that_is_faster_than_the_client_has_to_wait() -> None:
    size = 64 * MOST_UNREAD
    sent = 0

    async def floods(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 2**16)
            sent += 2**16
            await writer.drain()

    async def scenario() -> None:
        async with engine(floods) as (found, lines):
            response = await lines.ask("POST", found.url, b"", {}, CONNECT_S)
            before = -1
            while sent != before:  # until it stands still
                before = sent
                await asyncio.sleep(0.1)
            assert sent < size, "it was never held"
            length = 0
            while part := await response.readany():
                length += len(part)
            assert length == size and response.at_eof()

    run(scenario)


def test_no_header_can_end_its_line() -> None:
    async def scenario() -> None:
        async with engine() as (found, lines):
            for value in ("a\r\nx-other: b", "a\nb", "a\rb"):
                with pytest.raises(ValueError, match="end of a line"):
                    await lines.ask("POST", found.url, b"", {"x-request-id": value}, CONNECT_S)
            assert not found.connections

    run(scenario)


def test_nobody_there_is_an_error_of_the_system() -> None:
    async def scenario() -> None:
        lines = Lines({}, 1.0)
        with pytest.raises(OSError):
            await lines.ask("POST", "http://127.0.0.1:9/", b"", {}, CONNECT_S)

    run(scenario)


def test_addresses_are_taken_apart() -> None:
    assert place("http://127.0.0.1:8000/engines/a b/v1?x=1") == ("127.0.0.1", 8000, False, "/engines/a%20b/v1?x=1", "127.0.0.1:8000")  # fmt: skip
    assert place("https://localhost") == ("localhost", 443, True, "/", "localhost")
    assert place("http://u:p@[::1]:1/x")[:1] + place("http://u:p@[::1]:1/x")[3:] == ("::1", "/x", "[::1]:1")
    assert "\n" not in place("http://h/\r\nx").path and "\n" not in place("http://h/\r\nx").name


@pytest.mark.parametrize("host", ["192.0.2.1", "example.com", "localhost.example.com", "[2001:db8::1]"])
def test_no_connection_leaves_the_machine(host: str) -> None:
    async def scenario() -> None:
        lines = Lines({}, 1.0)
        with pytest.raises(ApiError, match="on this machine"):
            await lines.ask("POST", f"http://{host}:80/", b"", {}, CONNECT_S)

    run(scenario)


@given(
    bodies=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    chunked=st.booleans(),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
@settings(deadline=None, max_examples=40)
def test_answers_come_out_as_they_went_in_wherever_the_wire_cuts_them(
    bodies: list[bytes], chunked: bool, cuts: list[int]
) -> None:
    def told(body: bytes) -> list[bytes]:
        if chunked:
            pieces = [body[:100], body[100:]]
            coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
            raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
        else:
            raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        parts, at = [], 0
        for index in range(len(raw)):
            if at < len(raw):
                size = cuts[index % len(cuts)]
                parts.append(raw[at : at + size])
                at += size
        return parts

    async def scenario() -> None:
        async with engine(*(writes(*told(body)) for body in bodies)) as (found, lines):
            for body in bodies:
                assert await whole(lines, found.url) == (200, body)
            assert found.connections == 1

    run(scenario)
