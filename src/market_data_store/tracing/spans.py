"""The spans of a row's way: `write`, `send` and Celery's `apply_async` at the producer, `run`, `batch` and `commit`.

A message belongs to the trace of the write that brought its first row, and links to those of its other writes. In a
worker each message has its span `run/store.write`, as Celery's own instrumentation would make it if a message had a run
of its own. The messages of a batch are written together: the span of the batch belongs to the trace of its first
message and links to all messages, and the spans of the others link to it. No span has a value of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
    use_span,
)

from market_data_store.protocol import TASK

#: So many writes, at most, is a message known to come from; SDKs keep as many links.
_MOST_ORIGINS = 128
#: What a span of Celery's instrumentation has, by the same names.
_ACTION, _TASK_NAME, _MESSAGE_ID = "celery.action", "celery.task_name", "messaging.message.id"
Facts = Mapping[str, str | int | bool]


class Carried(NamedTuple):
    """What a worker knows of a message: its id, its bytes, and its headers that name a trace."""

    task_id: str
    size: int
    headers: Mapping[str, str] | None


class Outcome(NamedTuple):
    """What became of a message: in a word, and as numbers if it was written."""

    word: str
    result: str = ""
    is_error: bool = False


class Spans:
    """Makes the spans of this process. Thread-safe."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("market_data_store")
        instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]
        if not instrumentor.is_instrumented_by_opentelemetry:  # the application's own; a second one is refused
            instrumentor.instrument(tracer_provider=provider)

    @contextmanager
    def write(self, dataset: str, rows: int) -> Iterator[None]:
        """The span of one `StoreClient.write`."""
        facts: Facts = {"store.dataset": dataset, "store.rows": rows}
        with self._span(f"write {dataset}", facts):
            yield

    def joined(self, origins: list[SpanContext] | None) -> list[SpanContext] | None:
        """Return the origins of a message with the current span, whose rows it gets."""
        now = get_current_span().get_span_context()
        if not now.is_valid or (origins and (now == origins[-1] or len(origins) >= _MOST_ORIGINS)):
            return origins
        return [*(origins or ()), now]

    @contextmanager
    def send(self, dataset: str, rows: int, origins: Sequence[SpanContext]) -> Iterator[None]:
        """The span of a message's way to the broker; around it Celery's instrumentation makes the producer's span."""
        parent = set_span_in_context(NonRecordingSpan(origins[0]), Context()) if origins else Context()
        facts: Facts = {"store.dataset": dataset, "store.rows": rows, "store.writes": len(origins)}
        with self._span(f"send {dataset}", facts, parent, [Link(origin) for origin in origins[1:]]):
            yield

    def run(self, messages: Sequence[Carried]) -> Run:
        """Begin the spans of messages that a worker writes together. `Run.end` ends them."""
        return Run([self._of(message) for message in messages], self)

    def _of(self, message: Carried) -> Span | None:
        """The span of a message, if it belongs to a trace."""
        if not message.headers:
            return None
        parent = extract(message.headers, Context())
        if not get_current_span(parent).get_span_context().is_valid:
            return None
        facts: Facts = {_ACTION: "run", _TASK_NAME: TASK, _MESSAGE_ID: message.task_id, "store.bytes": message.size}
        return self._tracer.start_span(f"run/{TASK}", parent, SpanKind.CONSUMER, facts)

    def batch(self, spans: Sequence[Span], messages: int) -> Span:
        """Begin the span of a batch, in the trace of the first message that is recorded."""
        first = next((span for span in spans if span.is_recording()), spans[0] if spans else None)
        parent = Context() if first is None else set_span_in_context(first, Context())
        links = [Link(span.get_span_context()) for span in spans]
        span = self._tracer.start_span("batch", parent, SpanKind.INTERNAL, {"store.messages": messages}, links)
        for other in spans:
            if other is not first:
                other.add_link(span.get_span_context())
        return span

    @contextmanager
    def commit(self, dataset: str, messages: int) -> Iterator[Span]:
        """The span of one transaction, with the tries that it takes."""
        facts: Facts = {"db.system.name": "postgresql", "store.dataset": dataset, "store.messages": messages}
        with self._span(f"commit {dataset}", facts) as span:
            yield span

    @contextmanager
    def _span(
        self, name: str, facts: Facts, parent: Context | None = None, links: Sequence[Link] = ()
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name, parent, attributes=facts, links=links, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))  # its text may quote a value
                raise


class Run:
    """The spans of messages that are written together."""

    def __init__(self, spans: list[Span | None], maker: Spans) -> None:
        self._of_messages = spans
        self._batch = maker.batch([span for span in spans if span is not None], len(spans))
        self._maker = maker

    @contextmanager
    def current(self) -> Iterator[None]:
        """Let what begins in the block belong to the batch."""
        with use_span(self._batch, record_exception=False, set_status_on_exception=False):
            yield

    def end(self, outcomes: Iterable[Outcome]) -> None:
        """End the spans; with fewer outcomes than messages, the others did not come to an end."""
        given = iter(outcomes)
        self._batch.end()
        for span in self._of_messages:
            outcome = next(given, Outcome("unfinished", is_error=True))
            if span is None:
                continue
            span.set_attribute("store.outcome", outcome.word)
            if outcome.result:
                span.set_attribute("store.result", outcome.result)
            if outcome.is_error:
                span.set_status(Status(StatusCode.ERROR, outcome.word))
            span.end()
