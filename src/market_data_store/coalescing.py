"""Merges waiting messages into one job of the pool, while each stays a task of its own.

How it works. Celery's own strategy (`celery.worker.strategy.default`) makes a `Request` of each message, with its
events, its revocation and its acknowledgement, and hands it to the consumer. `strategy` runs that very code, but with
a stand-in for the consumer (`_Gathering`) that puts the request into a `_Buffer`. When a pool process is free, and the
buffer holds enough rows or its oldest request has waited long enough, the buffer hands the pool one `Job`: the
requests' bodies as they came from the broker. The job's callbacks give each request its own outcome.

While all processes are busy the buffer grows, so that batches become larger just when that pays.

What stays in the parent process is bookkeeping: bodies are decoded in the pool alone. The way back is as Celery's:
a request is acknowledged after its rows are committed, and goes back to the broker when the process died, when its
time limit struck, or when the job says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import Task, current_app
from celery.exceptions import TaskRevokedError, WorkerLostError
from celery.worker import state
from celery.worker.request import Request
from celery.worker.strategy import default
from kombu.utils.uuid import uuid

from market_data_store.protocol import ARROW, ENQUEUED_AT_HEADER, REPLAYS_HEADER
from market_data_store.summary import row_count, summary

logger = logging.getLogger(__name__)


#: A decoded message of nothing: put where kombu caches the body, it keeps Celery from decoding it in the parent.
_UNDECODED: tuple[Any, ...] = ((), {}, None)


class Envelope(NamedTuple):
    """What the pool gets of a message."""

    task_id: str
    body: bytes
    #: Epoch seconds; when it was received, for a message that does not say.
    enqueued_at: float
    ignore_result: bool
    reply_to: str | None
    correlation_id: str | None
    #: Why the message is unusable whatever its body holds.
    unusable: str | None = None
    #: Whether it belongs to a group, which Celery's own tracer has to tell of its end.
    grouped: bool = False
    #: The header of that name, whatever it holds.
    replays: Any = None
    #: It was delivered before, and runs alone.
    redelivered: bool = False
    #: The body is a table of Arrow's, not JSON.
    columnar: bool = False


class Succeeded(NamedTuple):
    """The message was dealt with: acknowledge it."""

    #: For events, short.
    result: str
    runtime: float


class Failed(NamedTuple):
    """The message can never be dealt with, and was kept elsewhere: acknowledge it as failed."""

    error: ExceptionInfo
    runtime: float


class GiveBack(NamedTuple):
    """Not now: back to the broker with it."""

    reason: str


class Alone(NamedTuple):
    """The message asks for what only Celery's own tracer does (callbacks, a chain): run it as a task of its own."""


Outcome = Succeeded | Failed | GiveBack | Alone


class CoalescedTask(Task):
    """A task whose waiting messages are run together, by `run_batch` in a pool process."""

    abstract = True
    Strategy = "market_data_store.coalescing:strategy"
    Request = "market_data_store.coalescing:CoalescedRequest"

    #: A batch is full at about this many rows ...
    batch_rows = 5_000
    #: ... or with this many messages, a pool process's share of what the worker may hold: a batch that took more
    #: would leave the other processes idle.
    batch_messages = 128
    #: It is due after this many seconds.
    flush_interval_s = 0.05

    def run_batch(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """Deal with these messages, in a pool process; one outcome each, in their order."""
        raise NotImplementedError


class CoalescedRequest(Request):
    """A request that shares its pool process with others, and so cannot take that process down alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows = row_count(self.argsrepr, self.body)
        # What events, logs and `inspect` show; by default a foreign sender's rows as text, the first 1,024 characters.
        self._argsrepr = summary(self.argsrepr, self.kwargsrepr, self.body, self.rows)
        self._kwargsrepr = "{...}" if self.kwargsrepr not in ("", "{}") else "{}"

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Refused once a pool process has it: the others in its batch would be terminated with it."""
        logger.warning("Task %s[%s] is being written with others and cannot be terminated", self.name, self.id)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Nothing, on a lost connection: the batch is committed, and its redelivery then changes nothing."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Back to the broker first: Celery 5.6 would drop the message at its hard time limit."""
        if not soft:
            self.reject(requeue=True)
        super().on_timeout(soft, timeout)


def strategy(task: CoalescedTask, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's default strategy, with requests going to a buffer; called anew at each connection to the broker."""
    buffer = _Buffer(task, consumer)
    # One line a batch is logged by the pool process; one a message would cost more than the message.
    handle = default(task, app, _Gathering(consumer, buffer), info=logger.debug, **options)

    def on_message(message: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        if body is None:  # protocol 2, with the body still encoded
            message._decoded_cache = _UNDECODED
        return handle(message, body, *args, **kwargs)

    return on_message


class _Gathering:
    """Stands in for the consumer, and takes what is ready to run to the buffer instead of the pool."""

    #: A rate limit would hold back single messages; the batch size is the limit here.
    disable_rate_limits = True

    def __init__(self, consumer: Any, buffer: _Buffer) -> None:
        self._consumer = consumer
        self._buffer = buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def on_task_request(self, request: Any) -> None:
        self._buffer.add(request)

    def apply_eta_task(self, request: Any) -> None:
        state.task_reserved(request)
        self._buffer.add(request)
        self._consumer.qos.decrement_eventually()


class _Buffer:
    """The requests that wait for a batch, of one connection to the broker.

    What is in it when the connection goes is void: the broker delivers it again.
    """

    def __init__(self, task: CoalescedTask, consumer: Any) -> None:
        self._task = task
        self._consumer = consumer
        self._requests: list[tuple[Any, int]] = []
        self._rows = 0
        self._jobs = 0
        self._due = False
        self._timed = False

    def add(self, request: Any) -> None:
        if is_redelivered(request):
            # It was in a batch that did not end: should it be the reason, it must not drag others along.
            self._hand_over([request])
            return
        self._requests.append((request, request.rows))
        self._rows += request.rows
        if self._is_full():
            self._flush()
        elif not self._timed:
            self._timed = True
            self._consumer.timer.call_after(self._task.flush_interval_s, self._on_due)

    def _on_due(self) -> None:
        self._timed = False
        self._due = True
        self._flush()

    def _flush(self) -> None:
        while (
            self._requests
            and (self._due or self._is_full())
            and self._jobs < self._consumer.pool.num_processes
            and not (state.should_stop is not None or state.should_terminate is not None)
        ):
            self._hand_over(self._taken())
        if not self._requests:
            self._due = False

    def _is_full(self) -> bool:
        return self._rows >= self._task.batch_rows or len(self._requests) >= self._task.batch_messages

    def _taken(self) -> list[Any]:
        rows = end = 0
        most = min(len(self._requests), self._task.batch_messages)
        while end < most and rows < self._task.batch_rows:
            rows += self._requests[end][1]
            end += 1
        taken = [request for request, _ in self._requests[:end]]
        del self._requests[:end]
        self._rows -= rows
        return taken

    def _hand_over(self, requests: list[Any]) -> None:
        self._jobs += 1
        self._consumer.on_task_request(Job(self._task, requests, self._consumer, self._on_done))

    def _on_done(self) -> None:
        self._jobs -= 1
        self._flush()


def is_redelivered(request: Any) -> bool:
    """Whether the broker has delivered the message before."""
    return bool((getattr(request, "delivery_info", None) or {}).get("redelivered"))


@dataclass(slots=True, eq=False)
class Job:
    """Requests on their way through the pool; Celery's worker takes it for a request.

    `on_done` is called once, when the pool has no more to do with it.
    """

    task: CoalescedTask
    requests: list[Any]
    consumer: Any
    on_done: Callable[[], None]
    _open: bool = True

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Called by the worker when a pool process is free."""
        self.requests = [request for request in self.requests if not request.revoked()]
        if not self.requests:
            self._close()
            raise TaskRevokedError("every task of the batch was revoked")
        return pool.apply_async(
            _run_in_pool,
            args=(self.task.name, [_envelope(request) for request in self.requests]),
            accept_callback=self._on_accepted,
            timeout_callback=self._on_timeout,
            callback=self._on_success,
            error_callback=self._on_failure,
            soft_timeout=self.task.soft_time_limit,
            timeout=self.task.time_limit,
            correlation_id=uuid(),
        )

    def _on_accepted(self, pid: int, time_accepted: float) -> None:
        for request in self.requests:
            request.on_accepted(pid, time_accepted)

    def _on_success(self, outcomes: list[Outcome], **_: Any) -> None:
        requests = self.requests
        self._close()
        for request, outcome in zip(requests, outcomes, strict=True):
            match outcome:
                case Succeeded(result, runtime):
                    request.on_success((False, result, runtime))
                case Failed(error, runtime):
                    request.on_success((True, error, runtime))
                case GiveBack(reason):
                    logger.warning("Task %s[%s] goes back to the broker: %s", request.name, request.id, reason)
                    self._give_back(request)
                case Alone():
                    self.consumer.on_task_request(request)

    def _on_timeout(self, soft: bool, timeout: float) -> None:
        for request in self.requests:
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
        if isinstance(cause, WorkerLostError | SystemExit):
            logger.error("A pool process was lost; %d tasks go back to the broker", len(requests))
        else:
            logger.error("A batch failed; %d tasks go back to the broker", len(requests), exc_info=error.exc_info)
        for request in requests:
            self._give_back(request)

    def _give_back(self, request: Any) -> None:
        state.task_ready(request)
        request.reject(requeue=True)

    def _close(self) -> bool:
        if not self._open:
            return False
        self._open = False
        # Celery's timers of the time limits keep the job until these are over: 90 s of messages, were they left here.
        self.requests = []
        self.on_done()
        return True


def _envelope(request: Any) -> Envelope:
    headers = request.request_dict
    body = request.body
    unusable = getattr(request, "unusable", None)
    if request.content_type not in (None, "application/json", ARROW):
        unusable = f"content_type: {str(request.content_type)[:80]!r} is not application/json, nor {ARROW}"
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    elif not isinstance(body, bytes | bytearray):  # protocol 1 comes decoded
        body = msgspec.json.encode(body)
    enqueued_at = headers.get(ENQUEUED_AT_HEADER)
    now = time.time()
    # NaN fails both comparisons, and a clock that is ahead counts as now.
    if isinstance(enqueued_at, bool) or not isinstance(enqueued_at, int | float) or not 0 <= enqueued_at <= now:
        enqueued_at = now
    return Envelope(
        task_id=request.id,
        body=bytes(body),
        enqueued_at=enqueued_at,
        ignore_result=bool(request.ignore_result),
        reply_to=headers.get("reply_to"),
        correlation_id=headers.get("correlation_id"),
        unusable=unusable,
        grouped=bool(headers.get("group")),
        replays=headers.get(REPLAYS_HEADER),
        redelivered=is_redelivered(request),
        columnar=request.content_type == ARROW,
    )


def _run_in_pool(task_name: str, envelopes: list[Envelope]) -> list[Outcome]:
    return list(current_app.tasks[task_name].run_batch(envelopes))
