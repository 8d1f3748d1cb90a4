"""The task `store.write`: commits the rows of messages, and gives each message its result.

Runs in pool processes. `coalescing` makes the batches, `wire.columns` types the rows, and `postgres.writer` stores
them. This module combines them, with the retries of `retrying`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.task import Context
from celery.exceptions import Reject
from kombu.utils.uuid import uuid

from market_data_store.app import app
from market_data_store.config import settings
from market_data_store.datasets import Dataset
from market_data_store.dead_letters import DeadLetter
from market_data_store.errors import LETTERS, InvalidMessage, LettersUnavailable, MessagesSuspected, Reason
from market_data_store.postgres.batch import DecodedMessage, Written, decoded
from market_data_store.protocol import (
    ENQUEUED_AT_HEADER,
    JSON,
    REPLAYS_HEADER,
    TASK,
    Counts,
    Rejection,
    Replayed,
    result_of,
)
from market_data_store.signals import rows_rejected
from market_data_store.transport.moving import counted_turns, reached
from market_data_store.wire.arrow import Frame, read_table
from market_data_store.wire.rows import read_rows
from market_data_store.worker import arrivals
from market_data_store.worker.calls import Call, parsed, validated_call
from market_data_store.worker.envelope import Envelope, Failed, Hold, Outcome, RunAsTask, Succeeded
from market_data_store.worker.jobs import CoalescedTask, is_redelivered
from market_data_store.worker.reporting import report
from market_data_store.worker.retrying import persistently, process_writer
from market_data_store.worker.unfinished import UNFINISHED, OutOfTime, put_aside

logger = logging.getLogger(__name__)


class WriteTask(CoalescedTask):
    """The base of `store.write`. Single calls and batches take different ways, and both end in `_write`."""

    abstract = True

    @property
    def batch_rows(self) -> int:
        """MDS_BATCH_ROWS."""
        return settings().batch_rows

    @property
    def batch_messages(self) -> int:
        """MDS_PREFETCH_MESSAGES."""
        return settings().prefetch_messages

    @property
    def flush_interval_s(self) -> float:
        """MDS_FLUSH_INTERVAL_S."""
        return settings().flush_interval_s

    def run_batch(self, envelopes: Sequence[Envelope], held: frozenset[str] = frozenset()) -> list[Outcome]:
        """Write these messages' rows in one transaction for each of their datasets, but those of the held ones."""
        try:
            envelopes = arrivals.dated(envelopes)
        except UNFINISHED as error:
            return [put_aside(error, envelope) for envelope in envelopes]
        outcomes = self._run(envelopes, held)
        arrivals.finished(
            envelope.task_id
            for envelope, outcome in zip(envelopes, outcomes, strict=True)
            if isinstance(outcome, Succeeded | Failed)
        )
        return outcomes

    def _run(self, envelopes: Sequence[Envelope], held: frozenset[str]) -> list[Outcome]:
        started = time.monotonic()
        keeps_letters = LETTERS not in held
        outcomes: dict[str, Outcome] = {}
        by_dataset: dict[Dataset, list[DecodedMessage]] = {}
        for envelope in envelopes:
            try:
                call, is_plain = parsed(envelope)
                if call.dataset.name in held:
                    outcomes[envelope.task_id] = Hold(call.dataset.name, enqueued_at=envelope.enqueued_at)
                    continue
                message = _message(envelope, call)
                # Celery's own tracer, which a group needs, reads JSON alone.
                if is_plain and (not envelope.grouped or envelope.columnar):
                    by_dataset.setdefault(call.dataset, []).append(message)
                else:
                    outcomes[envelope.task_id] = RunAsTask()
            except InvalidMessage as error:
                outcomes[envelope.task_id] = self._refuse(envelope, error, started, keeps_letters)
            except SoftTimeLimitExceeded:
                raise  # the batch goes back to the broker
            except Exception as error:  # noqa: BLE001  # anybody can send a message; none may stop the others
                outcomes[envelope.task_id] = self._refuse(envelope, _unexpected(error), started, keeps_letters)
        known = {envelope.task_id: envelope for envelope in envelopes}
        for dataset, messages in by_dataset.items():
            outcomes |= self._write_together(dataset, messages, known, started, keeps_letters)
        return [outcomes[envelope.task_id] for envelope in envelopes]

    def _write_together(
        self,
        dataset: Dataset,
        messages: list[DecodedMessage],
        known: Mapping[str, Envelope],
        started: float,
        keeps_letters: bool,
        once: bool = False,
    ) -> dict[str, Outcome]:
        try:
            envelopes = [known[message.task_id] for message in messages]
            written = _write(dataset, messages, envelopes, keeps_letters=keeps_letters, once=once)
        except UNFINISHED as error:
            if not isinstance(error, LettersUnavailable | MessagesSuspected) or len(messages) == 1:
                return {message.task_id: put_aside(error, known[message.task_id]) for message in messages}
        except Exception as error:  # noqa: BLE001  # as in `_run`
            if len(messages) == 1:
                task_id = messages[0].task_id
                return {task_id: self._refuse(known[task_id], _unexpected(error), started, keeps_letters)}
        else:
            return {
                message.task_id: (
                    put_aside(written.waiting[index], known[message.task_id])
                    if index in written.waiting
                    else self._succeed(known[message.task_id], counts, rejections, started)
                )
                for index, (message, counts, rejections) in enumerate(
                    zip(messages, written.counts, written.rejections, strict=True)
                )
            }
        # One of them causes it, and the others must not wait until it is known which.
        alone = (self._write_together(dataset, [one], known, started, keeps_letters, once=True) for one in messages)
        return {task_id: outcome for outcomes in alone for task_id, outcome in outcomes.items()}

    def _refuse(self, envelope: Envelope, error: InvalidMessage, started: float, keeps_letters: bool) -> Outcome:
        try:
            if not keeps_letters:
                raise LettersUnavailable
            letter = _keep(envelope, error)
        except UNFINISHED as unavailable:
            return put_aside(unavailable, envelope)
        rows_rejected.send(sender=TASK, dataset=None, rows=1)
        kept_as = f"dead letter {letter}: {_pattern(error)}"
        logger.warning("Task %s[%s] is unusable and was kept as %s", self.name, envelope.task_id, kept_as)
        try:
            raise error
        except InvalidMessage:
            info = ExceptionInfo()
        self._store(self.backend.mark_as_failure, envelope, error, traceback=info.traceback)
        return Failed(info, time.monotonic() - started)

    def _succeed(self, envelope: Envelope, counts: Counts, rejections: list[Rejection], started: float) -> Outcome:
        self._store(self.backend.mark_as_done, envelope, result_of(counts, rejections))
        # Events show no values of rows, and a reason quotes one.
        return Succeeded(repr(counts.numbers()), time.monotonic() - started)

    def _store(self, mark: Callable[..., None], envelope: Envelope, value: Any, **options: Any) -> None:
        if envelope.ignore_result:
            return
        request = Context(
            id=envelope.task_id,
            task=self.name,
            reply_to=envelope.reply_to,
            correlation_id=envelope.correlation_id,
            ignore_result=False,
        )
        try:
            mark(envelope.task_id, value, request=request, **options)
        except Exception:  # a backend raises whatever its driver raises; the rows are committed all the same
            logger.exception("Task %s[%s]: the result could not be stored", self.name, envelope.task_id)


@app.task(name=TASK, base=WriteTask, bind=True)
def write(self: WriteTask, dataset: str, rows: list[Any], defaults: dict[str, Any] | None = None) -> dict[str, Any]:
    """Commit rows to a dataset's table; returns what became of them, see `protocol.result_of`.

    `rows` is a list of objects; `defaults` fills fields that they leave out. Rejected rows become dead letters. If the
    message is unusable as a whole, keeps it as a dead letter and raises `InvalidMessage`.
    """
    request = self.request
    envelope = Envelope(
        task_id=request.id or uuid(),
        body=json.dumps([[dataset, rows, defaults], {}, {}], default=str).encode(),
        enqueued_at=getattr(request, ENQUEUED_AT_HEADER, None),
        ignore_result=True,
        reply_to=None,
        correlation_id=None,
        replays=getattr(request, REPLAYS_HEADER, None),
        content_type=JSON,
        content_encoding="utf-8",
        redelivered=is_redelivered(request),
        turns=counted_turns(vars(request)),
        reached=reached(vars(request)),
        arrived=getattr(request, arrivals.ARRIVED, time.monotonic()),
    )
    try:
        (envelope,) = arrivals.dated([envelope])
        try:
            call = validated_call(dataset, rows, defaults)
            written = _write(call.dataset, [_message(envelope, call)], [envelope])
            if written.waiting:
                raise written.waiting[0]
        except InvalidMessage as error:
            _keep(envelope, error)
            arrivals.finished([envelope.task_id])
            raise
    except UNFINISHED as error:
        raise Reject(put_aside(error, envelope), requeue=True) from error
    arrivals.finished([envelope.task_id])
    return result_of(written.counts[0], written.rejections[0])


def _keep(envelope: Envelope, error: InvalidMessage) -> int | None:
    """Keep the message as a dead letter; returns the letter's id."""
    letter = DeadLetter(
        task_id=envelope.task_id,
        position=0,
        reason=str(error),
        pattern=_pattern(error),
        body=envelope.body,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        compression=envelope.compression,
        enqueued_at=envelope.moment,
    )
    replays = _replays(envelope)
    again = [replace(letter, id=id_, task_id=replays.task_id) for id_ in replays.ids] if replays else []
    return persistently(lambda: process_writer().keep(again or [letter]))[0]


def _pattern(error: InvalidMessage) -> str:
    return error.pattern or "message: cannot be used"


def _replays(envelope: Envelope) -> Replayed | None:
    """The letters that the message was made of; None for a header that `replay` did not write."""
    try:
        return msgspec.convert(envelope.replays, Replayed | None)
    except msgspec.ValidationError:
        return None


def _message(envelope: Envelope, call: Call) -> DecodedMessage:
    if isinstance(call.rows, Frame):
        rows = read_table(call.dataset, call.rows, call.defaults)
    else:
        rows = read_rows(call.dataset, call.rows, call.defaults)
    replays = _replays(envelope)
    if replays is not None and len(replays.ids) != (1 if replays.whole else len(rows)):
        replays = None
    return DecodedMessage(
        task_id=envelope.task_id,
        dataset=call.dataset,
        rows=rows,
        enqueued_at=envelope.moment,
        defaults=call.defaults,
        replays=replays,
    )


def _write(
    dataset: Dataset,
    messages: list[DecodedMessage],
    envelopes: list[Envelope],
    *,
    keeps_letters: bool = True,
    once: bool = False,
) -> Written:
    started = time.monotonic()
    rows = decoded(dataset, messages)
    writer = process_writer()
    at = min((envelope.reached for envelope in envelopes if envelope.was_ended), default=None)

    def attempt() -> Written:
        return writer.write(rows, messages, keeps_letters=keeps_letters, resumed_at=at)

    try:
        written = attempt() if once else persistently(attempt)
    except SoftTimeLimitExceeded as error:
        raise OutOfTime(writer.reached if len(messages) == 1 else 0) from error
    report(dataset.name, written, time.monotonic() - started)
    return written


def _unexpected(error: Exception) -> InvalidMessage:
    # Without the error's text: it may contain the message's values.
    logger.error("A message could not be processed (%s) and was kept as a dead letter", type(error).__name__)
    return InvalidMessage(Reason.of("message: cannot be processed ({kind})", kind=type(error).__name__))
