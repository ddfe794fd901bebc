"""Traces: a request's W3C context goes on to the engines; with an endpoint, spans of it are sent there.

A span for each request and one for each question to an engine, named and described by OpenTelemetry's conventions for
generative models (https://opentelemetry.io/docs/specs/semconv/gen-ai/). Nothing of prompts or answers is in them. The
SDK is loaded only where spans are wanted.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from leanmodel_api.serving import Tracing

from .fields import Endpoint
from .http import Scope, header

TRACE_PARENT, TRACE_STATE = "traceparent", "tracestate"
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")
_OPERATIONS: dict[Endpoint, str] = {"chat": "chat", "completions": "text_completion"}
_SERVICE = "leanmodel-router"
_MODEL = "gen_ai.request.model"


@dataclass(frozen=True)
class _Current:
    """What a question to an engine has to know of the request that it is for."""

    carried: Mapping[str, str] = field(default_factory=dict)
    tracer: Any = None
    context: Any = None
    operation: str = ""


_OUTSIDE = _Current()
_current: ContextVar[_Current] = ContextVar("leanmodel_trace", default=_OUTSIDE)


class Span:
    """A request's span; does nothing where none is wanted."""

    def __init__(self, found: Any = None) -> None:
        """Take OpenTelemetry's span."""
        self._found = found

    @property
    def wanted(self) -> bool:
        """Whether anybody will see what it is told."""
        return self._found is not None

    def tell(self, status: int, **facts: str | int | float | None) -> None:
        """Say how the request ended.

        Args:
            status: HTTP status of the answer.
            facts: attributes, double underscores for dots; those that are None or empty are left out.
        """
        if self._found is None:
            return
        told = {name.replace("__", "."): value for name, value in facts.items() if value not in (None, "")}
        self._found.set_attributes({"http.response.status_code": status, **told})
        if status >= 500:
            _failed(self._found, str(status))


class Tracer:
    """Follows the settings: begins, changes and ends the sending of spans."""

    def __init__(self) -> None:
        """Send nothing yet."""
        self._wanted: Tracing | None = None
        self._provider: Any = None
        self._tracer: Any = None

    def follow(self, wanted: Tracing | None, model: str) -> None:
        """Send spans where it is wanted; one exporter ends when the next begins.

        Args:
            model: the LeanModel's name.
        """
        if wanted == self._wanted:
            return
        before, self._wanted, self._provider, self._tracer = self._provider, wanted, None, None
        if before is not None:  # what it still holds is sent; that may take seconds
            threading.Thread(target=before.shutdown, daemon=True).start()
        if wanted is not None:
            self._provider = _provider(wanted, model)
            self._tracer = self._provider.get_tracer("leanmodel_serving.router")

    def flush(self) -> None:
        """Send what there is, now; blocks."""
        if self._provider is not None:
            self._provider.force_flush()

    @contextmanager
    def request(self, scope: Scope, endpoint: Endpoint, model: str) -> Iterator[Span]:
        """Be within a request: what is asked of engines belongs to it."""
        carried = _carried(scope)
        operation = _OPERATIONS.get(endpoint, endpoint)
        if self._tracer is None:
            token = _current.set(_Current(carried))
            try:
                yield Span()
            finally:
                _current.reset(token)
            return
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract(carried)
        told = {"gen_ai.operation.name": operation, _MODEL: model, "url.path": scope["path"]}
        span = self._tracer.start_span(f"{operation} {model}", context, SpanKind.SERVER, told)
        current = _Current(carried, self._tracer, set_span_in_context(span, context), operation)
        token = _current.set(current)
        try:
            yield Span(span)
        finally:
            _current.reset(token)
            span.end()


@contextmanager
def question(revision: str) -> Iterator[Mapping[str, str]]:
    """Be within a question to an engine; gives the headers that carry the context to it."""
    current = _current.get()
    if current.tracer is None:
        yield current.carried
        return
    from opentelemetry.trace import SpanKind, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    told = {"gen_ai.operation.name": current.operation, _MODEL: revision}
    span = current.tracer.start_span(
        f"{current.operation} {revision}", current.context, SpanKind.CLIENT, told
    )
    carried: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carried, set_span_in_context(span, current.context))
    try:
        yield carried
    except BaseException as error:
        _failed(span, type(error).__name__)
        raise
    finally:
        span.end()


def _carried(scope: Scope) -> dict[str, str]:
    """Return a request's context as far as it is well formed; a broken one is dropped, as the standard wants."""
    parent, state = header(scope, TRACE_PARENT.encode()), header(scope, TRACE_STATE.encode())
    if not _PARENT.fullmatch(parent):
        return {}
    return {TRACE_PARENT: parent} | ({TRACE_STATE: state} if _STATE.fullmatch(state) else {})


def _provider(wanted: Tracing, model: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    sampler = ParentBased(TraceIdRatioBased(float(wanted.sampling)))
    resource = Resource.create({"service.name": _SERVICE, "leanmodel.name": model})
    provider = TracerProvider(sampler=sampler, resource=resource)
    exporter = OTLPSpanExporter(endpoint=f"{wanted.endpoint.rstrip('/')}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return provider


def _failed(span: Any, kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
