"""A worker's part of the traces: each message's span, and the batch's. Does nothing while traces are off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from celery.signals import worker_process_init

from market_data_store.postgres.batch import Written
from market_data_store.protocol import Counts
from market_data_store.tracing import switch
from market_data_store.worker.envelope import Envelope, Failed, GiveBack, Hold, Outcome, Succeeded

#: Characters of a header that names a trace: W3C allows 512 for the longest, `tracestate`.
_MAX_HEADER = 512


@worker_process_init.connect(weak=False)
def _begin(**_: Any) -> None:
    """Begin in each pool process: the exporter's thread would not outlive the fork."""
    switch.begin("mds-worker")


def trace_of(headers: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the headers of a message that name its trace, unchecked but bounded; None while traces are off."""
    names = switch.header_names()
    if not names:
        return None
    found = {name: value for name in names if isinstance(value := headers.get(name), str) and _fits(value)}
    return found or None


def _fits(value: str) -> bool:
    return len(value) <= _MAX_HEADER and value.isprintable()


class Traced:
    """The outcomes of a batch, once it has them."""

    outcomes: Sequence[Outcome] = ()


_UNTRACED = Traced()


@contextmanager
def batch(envelopes: Sequence[Envelope]) -> Iterator[Traced]:
    """Trace the messages of a batch until the end of the block, which sets their outcomes."""
    spans = switch.spans()
    if spans is None:
        yield _UNTRACED
        return
    from market_data_store.tracing.spans import Carried  # has OpenTelemetry's packages

    run = spans.run([Carried(each.task_id, len(each.body), each.trace) for each in envelopes])
    traced = Traced()
    try:
        with run.current():
            yield traced
    finally:
        run.end(map(_outcome, traced.outcomes))


@contextmanager
def commit(dataset: str, messages: int) -> Iterator[list[Written]]:
    """Trace a transaction; the block puts in what it has written."""
    spans, found = switch.spans(), list[Written]()
    if spans is None:
        yield found
        return
    with spans.commit(dataset, messages) as span:
        yield found
        for written in found:
            for name, number in sum(written.counts, start=Counts()).numbers().items():
                span.set_attribute(f"store.{name}", number)


def _outcome(outcome: Outcome) -> Any:
    from market_data_store.tracing.spans import Outcome as Seen

    match outcome:
        case Succeeded(result):
            return Seen("written", result)
        case Failed():
            return Seen("dead letter", is_error=True)
        case GiveBack():
            return Seen("returned to the broker", is_error=True)
        case Hold():
            return Seen("held")
