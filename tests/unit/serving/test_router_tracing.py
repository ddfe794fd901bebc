"""Traces: the context goes through the router, and spans of it reach a collector by OTLP, without a word of a prompt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from router_double import ASK, cut, fine, router, run

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}


class Collector:
    """What an OpenTelemetry collector would have got."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                raw = self.rfile.read(int(self.headers["content-length"]))
                outer.raw.append(raw)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[Any]:
        import gzip

        found = []
        for raw in self.raw:
            text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
            assert b"a secret prompt" not in text
            asked = ExportTraceServiceRequest.FromString(text)
            found += [
                s for resource in asked.resource_spans for scope in resource.scope_spans for s in scope.spans
            ]
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.server.shutdown()
    found.server.server_close()


def told(span: Any) -> dict[str, Any]:
    """Its attributes."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_the_context_goes_on_to_the_engine(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router(tmp_path, fine) as setup:
            for sent in (
                CONTEXT,
                {},
                {"traceparent": "00-xyz"},
                {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
            ):
                await setup.client.post("/v1/completions", json=ASK, headers=sent)
            first, *others = [
                {k.lower(): v for k, v in headers.items() if k.lower() in CONTEXT}
                for _, headers in setup.seen
            ]
            assert first == CONTEXT and others == [{}, {}, {}]

    run(scenario)


def test_a_request_and_its_questions_are_spans(tmp_path: Path, collector: Collector) -> None:
    async def scenario() -> None:
        tracing = {"endpoint": collector.url, "sampling": "1"}
        async with router(tmp_path, fine, cut, rules={"tracing": tracing}) as setup:
            body = {**ASK, "prompt": "a secret prompt", "stream": True}
            reply = await setup.client.post("/v1/completions", json=body, headers=CONTEXT)
            assert reply.status_code == 200
            await asyncio.to_thread(setup.app.tracer.flush)
            found = {span.name: span for span in collector.spans()}
            assert set(found) == {"text_completion m", "text_completion lean"}
            request, lean = found["text_completion m"], found["text_completion lean"]
            assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
            assert (lean.trace_id, lean.parent_span_id) == (request.trace_id, request.span_id)
            assert setup.seen[0][1]["traceparent"] == f"00-{TRACE}-{lean.span_id.hex()}-01"
            facts = told(request)
            assert (
                facts["gen_ai.operation.name"] == "text_completion" and facts["gen_ai.request.model"] == "m"
            )
            assert facts["gen_ai.response.model"] == "lean" and facts["leanmodel.route"] == "lean"
            # Its stream broke off after the first byte: the client saw a 200, the span tells the truth.
            assert facts["http.response.status_code"] == 502 and facts["error.type"] == "502"

    run(scenario)


def test_spans_follow_the_settings(tmp_path: Path, collector: Collector) -> None:
    async def scenario() -> None:
        async with router(tmp_path, fine) as setup:
            state = setup.app.state.settings
            for tracing, spans in (({"endpoint": collector.url, "sampling": "1"}, 2), (None, 2)):
                changed = state.model_validate(
                    {**state.model_dump(mode="json", by_alias=True), "tracing": tracing}
                )
                setup.app.file.path.write_text(changed.to_json())
                setup.app.reload()
                await setup.client.post("/v1/completions", json=ASK)
                await asyncio.to_thread(setup.app.tracer.flush)
                assert len(collector.spans()) == spans

    run(scenario)
