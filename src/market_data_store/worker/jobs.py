"""Takes requests through the pool together, and gives each its own outcome."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import Task, current_app
from celery.exceptions import TaskRevokedError, WorkerLostError
from kombu.utils.uuid import uuid

from market_data_store.coordinator.counted import Counted
from market_data_store.errors import Reason
from market_data_store.logs.repeated import Repeated
from market_data_store.protocol import JSON, TURNS_HEADER
from market_data_store.transport.moving import counted_turns, reached
from market_data_store.worker import tally
from market_data_store.worker.envelope import Envelope, Failed, GiveBack, Hold, Outcome, Succeeded
from market_data_store.worker.headers import Headers, bytes_of
from market_data_store.worker.shutdown import is_stopping

logger = logging.getLogger(__name__)
#: Postgres takes nothing, and messages go back to the broker.
_outage = Repeated(logger)

#: Seconds after a process's end in which its results may still arrive; billiard's default is 10.
_LOST_S = 2.0
_TOO_LONG = GiveBack("the hard time limit was exceeded", counted=True)
_FAILED = GiveBack("its batch did not end", counted=True)
#: A worker that ends kills its processes after a while (see `shutdown`), which is not a message's fault.
_ENDED = GiveBack("the worker ended before its batch did")


class CoalescedTask(Task):
    """A task whose waiting messages run together, in `run_batch` of a pool process."""

    abstract = True
    Strategy = "market_data_store.worker.coalescing:strategy"
    Request = "market_data_store.worker.coalescing:CoalescedRequest"

    @property
    def batch_rows(self) -> int:
        """About how many rows make a batch full."""
        raise NotImplementedError

    @property
    def batch_messages(self) -> int:
        """How many messages make a batch full.

        It is a pool process's share of the worker's prefetch limit: a larger batch would leave other processes idle.
        """
        raise NotImplementedError

    @property
    def flush_interval_s(self) -> float:
        """After how many seconds a batch is due that is not full."""
        raise NotImplementedError

    def run_batch(self, envelopes: Sequence[Envelope], held: frozenset[str] = frozenset()) -> list[Outcome]:
        """Process these messages in a pool process; returns one outcome each, in their order.

        Those of the datasets `held` are not tried.
        """
        raise NotImplementedError


class PooledRequest(Protocol):
    """What a job needs of a request: a `coalescing.CoalescedRequest` or an `unusable.UnusableMessage`."""

    name: str
    id: str
    #: As kombu delivered it.
    message: Any
    #: As the broker delivered it: neither unpacked nor decoded.
    body: Any
    content_type: str | None
    content_encoding: str | None
    #: As `Envelope` has them.
    enqueued_at: float | None
    arrived: float | None
    born: float | None
    headers: Headers
    #: Why the message cannot be a task, if it cannot.
    unusable: Reason | None

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A pool process has begun it."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A time limit was exceeded."""

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float]) -> None:
        """Acknowledge it: it is done, or has failed for good."""

    def reject(self, requeue: bool) -> None:
        """Give it back to the broker."""

    def moved(self) -> None:
        """Its message is in another queue: it is done with here."""


def is_redelivered(request: Any) -> bool:
    """Whether the broker has delivered the message before."""
    return bool((getattr(request, "delivery_info", None) or {}).get("redelivered"))


def was_taken(request: PooledRequest) -> bool:
    """Whether a worker had the message before, also if it has been moved since."""
    return is_redelivered(request) or TURNS_HEADER in (request.message.headers or {})


@dataclass(slots=True, eq=False)
class Job:
    """Requests that pass through the pool together. Celery's worker takes it for a request.

    `on_done` is called once, when the pool has finished with it; with whether all its messages were written.
    """

    task: CoalescedTask
    requests: list[PooledRequest]
    consumer: Any
    on_done: Callable[[bool], None]
    _open: bool = True
    _begun: bool = False

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Start; called by the worker when a pool process is free.

        Whatever goes wrong, the messages go back and the pool's place is free again: Celery frees it for this error.
        """
        self._begun = True
        self.consumer.progress.began()
        try:
            held = self.consumer.aside.held_for(self.requests[0].message)
            return pool.apply_async(
                _run_in_pool,
                args=(self.task.name, [_envelope(request) for request in self.requests], held),
                accept_callback=self._on_accepted,
                timeout_callback=self._on_timeout,
                callback=self._on_success,
                error_callback=self._on_failure,
                soft_timeout=self.task.soft_time_limit,
                timeout=self.task.time_limit,
                lost_worker_timeout=_LOST_S,
                correlation_id=uuid(),
            )
        except Exception as error:
            if not self._open:  # a pool that runs jobs at once has settled the messages
                raise
            logger.exception("A batch could not be started; %d tasks go back to the broker", len(self.requests))
            requests = self.requests
            self._close()
            self._give_back([(request, _FAILED) for request in requests])
            raise TaskRevokedError("the batch could not be started") from error

    def _on_accepted(self, pid: int, time_accepted: float) -> None:
        for request in self.requests:
            request.on_accepted(pid, time_accepted)

    def _on_success(self, ended: tuple[list[Outcome], Counted], **_: Any) -> None:
        outcomes, counted = ended
        tally.gather(counted)
        requests = self.requests
        self._close(
            settled=any(isinstance(outcome, Succeeded | Failed | Hold) for outcome in outcomes),
            written=all(isinstance(outcome, Succeeded) for outcome in outcomes),
        )
        returned: list[tuple[PooledRequest, GiveBack]] = []
        held: list[tuple[PooledRequest, Hold]] = []
        lost: Exception | None = None
        for request, outcome in zip(requests, outcomes, strict=True):
            match outcome:
                case Succeeded() | Failed():
                    try:
                        _settle(request, outcome)
                    except Exception as error:  # noqa: BLE001  # of one message; the others are settled all the same
                        lost = lost or error
                case GiveBack():
                    returned.append((request, outcome))
                case Hold():
                    held.append((request, outcome))
        if returned:
            self._give_back(returned)
        if held:
            self.consumer.aside.hold(held)
        if any(isinstance(outcome, Succeeded) for outcome in outcomes):
            _outage.over("Messages are written again")
        if len(requests) == 1:
            self.consumer.aside.tried(requests[0].message, outcomes[0])
        if lost is not None:
            raise lost

    def _on_timeout(self, soft: bool, timeout: float) -> None:
        requests = self.requests
        if not soft:
            self._give_back([(request, _TOO_LONG) for request in requests])
        for request in requests:
            request.on_timeout(soft, timeout)
        if not soft:
            self._close()

    def _on_failure(self, error: ExceptionInfo, **_: Any) -> None:
        requests = self.requests
        if not self._close():  # after a hard time limit
            return
        cause = error.exception
        if isinstance(cause, ExceptionWithTraceback):
            cause = cause.exc
        is_lost = isinstance(cause, WorkerLostError | SystemExit)
        if is_lost:
            logger.error("A pool process was lost; %d tasks go back to the broker", len(requests))
        else:
            logger.error("A batch failed; %d tasks go back to the broker", len(requests), exc_info=error.exc_info)
        outcome = _ENDED if is_lost and is_stopping() else _FAILED
        self._give_back([(request, outcome) for request in requests])

    def _give_back(self, returned: Sequence[tuple[PooledRequest, GiveBack]]) -> None:
        reasons = Counter((outcome.reason, outcome.trouble) for _, outcome in returned)
        for (reason, trouble), count in reasons.items():
            text = f"What cannot be written now goes back to the broker ({count} messages): {reason}"
            if trouble:
                _outage.happened(text, kind=trouble)
            else:
                logger.warning("%s", text)
        self.consumer.aside.give_back(returned)

    def _close(self, *, settled: bool = False, written: bool = False) -> bool:
        if not self._open:
            return False
        self._open = False
        if self._begun:
            self.consumer.progress.ended(settled=settled)
        # Celery's timers keep the job until its time limits have passed. With its requests it would keep the messages
        # of 90 s in memory.
        self.requests = []
        self.on_done(written)
        return True


def _settle(request: PooledRequest, outcome: Succeeded | Failed) -> None:
    match outcome:
        case Succeeded(result, runtime):
            request.on_success((False, result, runtime))
        case Failed(error, runtime):
            request.on_success((True, error, runtime))


def _envelope(request: PooledRequest) -> Envelope:
    headers, content_encoding = request.headers, request.content_encoding
    if isinstance(request.body, str):  # of Celery's own transport
        content_encoding = "utf-8"
    return Envelope(
        task_id=headers.id,
        body=bytes_of(request.body),
        enqueued_at=request.enqueued_at,
        ignore_result=headers.ignore_result,
        reply_to=headers.reply_to,
        correlation_id=headers.correlation_id,
        unusable=request.unusable,
        lineage=headers.lineage,
        replays=headers.replays,
        redelivered=was_taken(request),
        turns=counted_turns(request.message.headers),
        reached=reached(request.message.headers),
        content_type=_text(request.content_type, JSON),
        content_encoding=_text(content_encoding, "utf-8"),
        compression=headers.compression,
        arrived=request.arrived,
        born=request.born,
        trace=headers.trace,
    )


def _text(value: str | None, usual: str) -> str | None:
    # The usual one is always the same object, which pickle sends to the pool once a batch instead of once a message.
    return usual if value == usual else value


def _run_in_pool(task_name: str, envelopes: list[Envelope], held: frozenset[str]) -> tuple[list[Outcome], Counted]:
    return list(current_app.tasks[task_name].run_batch(envelopes, held)), tally.taken()
