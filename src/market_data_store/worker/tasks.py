"""The task `store.write`: commits the rows of messages, and gives each message its result.

Runs in pool processes. `coalescing` makes the batches, `wire.columns` types the rows, and `postgres.writer` stores
them. This module combines them, with the retries of `retrying`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded

from market_data_store.app import app
from market_data_store.config import settings
from market_data_store.datasets import Dataset
from market_data_store.dead_letters import DeadLetter
from market_data_store.errors import (
    LETTERS,
    InvalidMessage,
    LettersUnavailable,
    MessagesSuspected,
    PartitionsMissing,
    Reason,
)
from market_data_store.postgres.batch import Written
from market_data_store.postgres.messages import DecodedMessage, Sent, decoded
from market_data_store.postgres.refusals import MOST_LETTERS
from market_data_store.protocol import TASK, Counts, Rejection, Replayed, result_of
from market_data_store.signals import rows_rejected
from market_data_store.wire.arrow import Frame, read_table
from market_data_store.wire.reader import known_defaults
from market_data_store.wire.rows import read_rows
from market_data_store.worker import added_columns, arrivals, replaying, tracing, unknown_fields
from market_data_store.worker.calls import Call, parsed
from market_data_store.worker.envelope import Envelope, Failed, Hold, Outcome, Succeeded
from market_data_store.worker.followers import follow
from market_data_store.worker.jobs import CoalescedTask
from market_data_store.worker.reporting import Rejects, report
from market_data_store.worker.retrying import persistently, process_writer
from market_data_store.worker.storing import ResultStore
from market_data_store.worker.unfinished import UNFINISHED, OutOfTime, put_aside

logger = logging.getLogger(__name__)
_rejects = Rejects(logger)


class WriteTask(CoalescedTask):
    """The base of `store.write`. Single calls and batches take different ways, and both end in `_write`."""

    abstract = True
    _results = ResultStore()

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
        with tracing.batch(envelopes) as traced:
            traced.outcomes = outcomes = self._run_dated(envelopes, held)
        return outcomes

    def _run_dated(self, envelopes: Sequence[Envelope], held: frozenset[str]) -> list[Outcome]:
        try:
            envelopes = replaying.verified(arrivals.dated(envelopes))
            added_columns.look()
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
        turn = _Turn(started=time.monotonic(), keeps_letters=LETTERS not in held)
        # By the message's place: ids are the senders', and may be equal.
        outcomes: dict[int, Outcome] = {}
        by_dataset: dict[Dataset, list[_Decoded]] = {}
        for place, envelope in enumerate(envelopes):
            embed: dict[str, Any] = {}
            try:
                call, embed = parsed(envelope)
                if call.dataset.name in held:
                    outcomes[place] = Hold(call.dataset.name, enqueued_at=envelope.enqueued_at)
                    continue
                if (known := added_columns.known_of(call.dataset)) is not call.dataset:
                    call = replace(call, dataset=known)
                message = _Decoded(place, envelope, embed, _message(envelope, call))
                by_dataset.setdefault(call.dataset, []).append(message)
            except InvalidMessage as error:
                outcomes[place] = self._refuse(envelope, embed, error, turn)
            except SoftTimeLimitExceeded:
                raise  # the batch goes back to the broker
            except MemoryError as error:  # perhaps due to another message of the batch
                outcomes[place] = put_aside(error, envelope)
            except Exception as error:  # noqa: BLE001  # anybody can send a message; none may stop the others
                outcomes[place] = self._refuse(envelope, embed, _unexpected(error), turn)
        for dataset, messages in by_dataset.items():
            outcomes |= self._write_together(dataset, messages, turn)
        return [outcomes[place] for place in range(len(envelopes))]

    def _write_together(
        self, dataset: Dataset, messages: list[_Decoded], turn: _Turn, once: bool = False
    ) -> dict[int, Outcome]:
        try:
            written = _write(
                dataset,
                [message.rows for message in messages],
                [message.envelope for message in messages],
                keeps_letters=turn.keeps_letters,
                once=once,
            )
        except PartitionsMissing as error:
            waiting = {messages[index].place: put_aside(error, messages[index].envelope) for index in error.messages}
            others = [message for message in messages if message.place not in waiting]
            return {**waiting, **(self._write_together(dataset, others, turn, once) if others else {})}
        except UNFINISHED as error:
            if not isinstance(error, LettersUnavailable | MessagesSuspected) or len(messages) == 1:
                return {message.place: put_aside(error, message.envelope) for message in messages}
        except Exception as error:  # noqa: BLE001  # as in `_run`
            if len(messages) == 1:
                place, envelope, embed, _ = messages[0]
                return {place: self._refuse(envelope, embed, _unexpected(error), turn)}
        else:
            return {
                message.place: (
                    put_aside(written.waiting[index], message.envelope)
                    if index in written.waiting
                    else self._succeed(message, counts, rejections, turn)
                )
                for index, (message, counts, rejections) in enumerate(
                    zip(messages, written.counts, written.rejections, strict=True)
                )
            }
        # One of them causes it, and the others must not wait until it is known which.
        alone = (self._write_together(dataset, [one], turn, once=True) for one in messages)
        return {place: outcome for outcomes in alone for place, outcome in outcomes.items()}

    def _refuse(self, envelope: Envelope, embed: dict[str, Any], error: InvalidMessage, turn: _Turn) -> Outcome:
        try:
            if not turn.keeps_letters:
                raise LettersUnavailable
            letter = _keep(envelope, error)
        except UNFINISHED as unavailable:
            return put_aside(unavailable, envelope)
        rows_rejected.send(sender=TASK, dataset=None, rows=1)
        kept_as = f"dead letter {letter}: {_pattern(error)}"
        text = f"Task {self.name}[{envelope.task_id}] is unusable and was kept as {kept_as}"
        _rejects.heard(self.name, _pattern(error), text)
        try:
            raise error
        except InvalidMessage:
            info = ExceptionInfo()
        if embed or envelope.lineage:
            follow(envelope, embed, error)
        else:
            self._results.store(self.backend.mark_as_failure, self.name, envelope, error, traceback=info.traceback)
        return Failed(info, time.monotonic() - turn.started)

    def _succeed(self, message: _Decoded, counts: Counts, rejections: list[Rejection], turn: _Turn) -> Outcome:
        result = result_of(counts, rejections)
        if message.embed or message.envelope.lineage:
            follow(message.envelope, message.embed, result)
        else:
            self._results.store(self.backend.mark_as_done, self.name, message.envelope, result)
        # Events show no values of rows, and a reason quotes one.
        return Succeeded(repr(counts.numbers()), time.monotonic() - turn.started)


class _Turn(NamedTuple):
    """What all messages of a batch share."""

    started: float
    keeps_letters: bool


class _Decoded(NamedTuple):
    """A message whose rows can be written, and its place in the batch."""

    place: int
    envelope: Envelope
    embed: dict[str, Any]
    rows: DecodedMessage


@app.task(name=TASK, base=WriteTask, bind=True)
def write(self: WriteTask, dataset: str, rows: list[Any], defaults: dict[str, Any] | None = None) -> dict[str, Any]:
    """Commit rows to a dataset's table; returns what became of them, see `protocol.result_of`.

    `rows` is a list of objects; `defaults` fills fields that they leave out. Rejected rows become dead letters. If the
    message is unusable as a whole, keeps it as a dead letter and raises `InvalidMessage`. A worker does all this in
    `run_batch`, with callbacks and without, and never calls this function.
    """
    raise NotImplementedError(f"send {self.name} to the queue; a worker writes it with others")


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
    replays: Replayed | None = envelope.replays
    again = [replace(letter, id=id_, task_id=replays.task_id) for id_ in replays.ids] if replays else []
    return persistently(lambda: process_writer().keep(again or [letter]))[0]


def _pattern(error: InvalidMessage) -> str:
    return error.pattern or "message: cannot be used"


def _message(envelope: Envelope, call: Call) -> DecodedMessage:
    if isinstance(call.rows, Frame):
        rows = read_table(call.dataset, call.rows, call.defaults)
    else:
        rows = read_rows(call.dataset, call.rows, call.defaults)
    replays: Replayed | None = envelope.replays
    if replays is not None and (
        len(replays.ids) != (1 if replays.whole else len(rows)) or len(replays.ids) > MOST_LETTERS
    ):
        replays = None
    return DecodedMessage(
        task_id=envelope.task_id,
        dataset=call.dataset,
        rows=rows,
        enqueued_at=envelope.moment,
        defaults=known_defaults(call.dataset, call.defaults),
        replays=replays,
        sent=Sent(envelope.body, envelope.content_type, envelope.content_encoding, envelope.compression),
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
        with tracing.commit(dataset.name, len(messages)) as committed:
            written = attempt() if once else persistently(attempt)
            committed.append(written)
    except SoftTimeLimitExceeded as error:
        raise OutOfTime(writer.reached if len(messages) == 1 else 0) from error
    ended = time.monotonic()
    latencies = [
        ended - envelope.born
        for place, envelope in enumerate(envelopes)
        if envelope.born is not None and place not in written.waiting
    ]
    report(dataset.name, written, ended - started, latencies)
    unknown_fields.heard(dataset.name, rows.unknown)
    return written


def _unexpected(error: Exception) -> InvalidMessage:
    # Without the error's text: it may contain the message's values.
    logger.error("A message could not be processed (%s) and was kept as a dead letter", type(error).__name__)
    return InvalidMessage(Reason.of("message: cannot be processed ({kind})", kind=type(error).__name__))
