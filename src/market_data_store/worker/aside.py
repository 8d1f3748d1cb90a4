"""Messages that a worker cannot settle now: it moves them to another queue instead of giving them back.

* A message whose turn ended badly (its process died, its time limit was exceeded, its batch failed), or that another
  worker had when it died, goes to its lane's `again_queue`. Each worker takes one message at a time from there and runs
  it alone, so that it affects no other, and costs at most one pool process. The broker counts its turns
  (`transport.moving`); after MDS_MAX_DELIVERIES of them it becomes a dead letter, without being decoded. A turn that
  exceeded the time limit and got farther than those before it (header `reached`) does not count.
* A message that met an outage of Postgres goes back to the queue that it came from, and no turn is counted.
* A message of a dataset whose table takes no row now is held (see `held`).

Each lane has such queues of its own, and a message stays in its lane. Probes of held datasets and messages of the
`again_queue`s share one place, live rows first: together they cost at most one pool process. A worker that consumes one
lane only sees to that lane's.

With a transport that cannot move messages (Celery's own), they are given back to the broker, without a bound.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from market_data_store.coordinator.queue import holdable
from market_data_store.errors import LETTERS, Reason
from market_data_store.logs.repeated import Repeated
from market_data_store.protocol import again_queue, held_queue
from market_data_store.transport.moving import Move, Mover, MoveRefused, counted_turns
from market_data_store.worker.envelope import Failed, GiveBack, Hold, Outcome, Succeeded
from market_data_store.worker.held import HeldDatasets, held_queues
from market_data_store.worker.origins import lane_of, origin_of
from market_data_store.worker.shutdown import is_stopping

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Seconds between two looks for messages that other workers have put aside.
LOOK_S = 1.0
#: The most messages that are moved in one step.
_MOVED_AT_ONCE = 50
#: At most this many messages of a dataset that is written again flow back every so many seconds.
FLOW_MESSAGES = 200
FLOW_S = 0.1
#: Leases are renewed this many times before they end, and at least every so many seconds.
_RENEWALS = 4
_RENEW_S = 60.0
#: Seconds until a message is given back that should be held, and cannot be moved.
_RETRY_S = 5.0


class MovableRequest(Protocol):
    """What is needed of a request here."""

    message: Any

    def moved(self) -> None:
        """Its message is in another queue."""

    def reject(self, requeue: bool) -> None:
        """Give it back to the broker."""


class Aside:
    """The messages that one connection to the broker has put aside, and the one that it has taken again.

    `deliver` handles a message as one that the consumer received. `lanes` says which queues the worker consumes.
    """

    def __init__(
        self,
        mover: Mover | None,
        hub: Any,
        deliver: Callable[[Any], None],
        held: HeldDatasets,
        lanes: Callable[[], Sequence[str]],
        *,
        lost: tuple[type[Exception], ...],
        max_deliveries: int,
        before: Aside | None = None,
    ) -> None:
        self._mover = mover
        self._hub = hub
        self._deliver = deliver
        self._held = held
        self._lanes = lanes
        self._errors: tuple[type[Exception], ...] = (MoveRefused, *lost)
        self._max_deliveries = max_deliveries
        self._arrived: list[Any] = []
        self._alone: Any = None
        self._trouble: Repeated = Repeated(logger) if before is None else before._trouble
        self._closed = False
        #: What the lost connection before had, and how many this worker has lost.
        self._tags: list[str] = [] if before is None else before._tags
        self._losses: int = 0 if before is None else before._losses

    def start(self) -> None:
        """Make the queues, and give back what the connection before had."""
        if self._mover is not None:
            self._declare(self._mover)
            if self._tags and self._done(partial(self._mover.give_back, self._tags)):
                self._tags = []

    def lost(self) -> None:
        """Note that the connection is lost: the messages are not the cause, so it does not count as a turn."""
        self._losses += 1
        if self._mover is not None:
            self._tags = [*self._tags, *self._mover.lost()]

    @property
    def renew_s(self) -> float | None:
        """At which interval to call `renew`; None for never."""
        lease_s = None if self._mover is None else self._mover.lease_s
        return None if lease_s is None else min(lease_s / _RENEWALS, _RENEW_S)

    def renew(self) -> None:
        """Keep what is at work: while a worker lives, the broker must neither redeliver it nor count a turn."""
        if not self._closed and self._mover is not None:
            self._done(self._mover.renew)

    def receives(self, message: Any) -> bool:
        """Whether the message, which somebody had before, is put aside; if so, the caller has nothing to do with it."""
        if self._mover is None or not (message.delivery_info or {}).get("redelivered") or origin_of(message):
            return False
        if not self._arrived:
            self._soon(self._put_aside)
        self._arrived.append(message)
        return True

    def turns_left(self, message: Any) -> bool:
        """Whether the message may have another turn."""
        return self._turns(message) < self._max_deliveries

    def _turns(self, message: Any) -> int:
        return counted_turns(message.headers, self._losses) if origin_of(message) else 0

    def give_back(self, returned: Iterable[tuple[MovableRequest, GiveBack]]) -> None:
        """Move messages to where they wait for their next turn."""
        by_queue: dict[str, list[tuple[MovableRequest, Move]]] = {}
        for request, outcome in returned:
            origin, lane = origin_of(request.message), lane_of(request.message)
            queue = origin or (again_queue(lane) if outcome.alone else lane)
            if outcome.counted:
                queue = again_queue(lane)
            move = Move(request.message, self._turns(request.message) + outcome.counted, reached=outcome.reached)
            by_queue.setdefault(queue, []).append((request, move))
        for queue, moves in by_queue.items():
            self._move(moves, queue)

    def hold(self, held: Iterable[tuple[MovableRequest, Hold]]) -> None:
        """Move messages to where they wait for their dataset."""
        by_queue: dict[str, list[tuple[MovableRequest, Move]]] = {}
        for request, outcome in held:
            lane = lane_of(request.message)
            self._held.note(outcome, lane)
            move = Move(request.message, self._turns(request.message), outcome.enqueued_at)
            by_queue.setdefault(held_queue(outcome.dataset, lane), []).append((request, move))
        for queue, moves in by_queue.items():
            # A probe goes to the end, so that the next one is another: a message may have a reason of its own.
            self._move(moves, queue, retry_s=_RETRY_S)

    def held_for(self, message: Any) -> frozenset[str]:
        """The datasets that must not be tried with this message: all that are held, but for a probe its own."""
        held = self._held.names
        origin = origin_of(message) if held else None
        return frozenset(name for name in held if held_queue(name, lane_of(message)) != origin) if origin else held

    def tried(self, message: Any, outcome: Outcome) -> None:
        """Let a dataset's messages flow back if this one was its probe, and was written, or has its letter."""
        origin = origin_of(message)
        for dataset in holdable() if origin else ():
            done = (Succeeded, Failed) if dataset == LETTERS else Succeeded
            if held_queue(dataset, lane_of(message)) == origin and isinstance(outcome, done):
                self._held.release(dataset)

    def flow_back(self) -> None:
        """Move a portion of the messages whose dataset is written again to their lanes' queues."""
        if self._closed or self._mover is None or is_stopping():
            return
        for dataset in list(self._held.flowing):
            pours = [
                partial(self._mover.pour, held_queue(dataset, lane), lane, FLOW_MESSAGES) for lane in self._lanes()
            ]
            if all((self._answer(pour) or 0) < FLOW_MESSAGES for pour in pours):
                self._held.flowing.discard(dataset)

    def settled(self, message: Any) -> None:
        """Take the next message if this one was the one that ran alone."""
        if message is self._alone:
            self._alone = None
            self._soon(self.look)

    def look(self) -> None:
        """Take the next message that runs alone, unless one is running."""
        if self._closed or self._mover is None or self._alone is not None:
            return
        if is_stopping():
            return
        message = self._take_probe() or self._take_first([again_queue(lane) for lane in self._lanes()])
        if message is not None:
            self._alone = message
            self._deliver(message)

    def close(self) -> None:
        """Stop; what was taken goes back to its queue."""
        self._closed = True
        if self._mover is not None:
            self._mover.close()

    def _soon(self, act: Callable[[], None]) -> None:
        # Not `call_soon`: what the loop's own callbacks call soon waits until something else wakes the loop.
        if not is_stopping():
            self._hub.call_later(0.0, act)

    def _put_aside(self) -> None:
        messages, self._arrived = self._arrived, []
        by_lane: dict[str, list[Any]] = {}
        for message in messages:
            by_lane.setdefault(lane_of(message), []).append(message)
        for lane, waiting in by_lane.items():
            for start in range(0, len(waiting), _MOVED_AT_ONCE):
                some = waiting[start : start + _MOVED_AT_ONCE]
                # One turn each, however often the broker has delivered them: their workers may not have begun them.
                if not self._moved([Move(message, 1) for message in some], again_queue(lane)):
                    for message in some:
                        self._deliver(message)
        self.look()

    def _take_probe(self) -> Any | None:
        if self._held.is_due and self._mover is not None:
            self._held.begin_round(self._declare(self._mover) or {})
        while (dataset := self._held.next_probe()) is not None:
            message = self._take_first([held_queue(dataset, lane) for lane in self._lanes()])
            if message is not None:
                return message
            self._held.release(dataset)  # nothing is left to try: the next message of the dataset shows
        return None

    def _declare(self, mover: Mover) -> dict[str, int] | None:
        queues = [queue for lane in self._lanes() for queue in (again_queue(lane), *held_queues(lane))]
        return self._answer(partial(mover.declare, queues))

    def _move(
        self,
        moves: Sequence[tuple[MovableRequest, Move]],
        queue: str,
        *,
        retry_s: float = 0.0,
    ) -> None:
        for start in range(0, len(moves), _MOVED_AT_ONCE):
            some = moves[start : start + _MOVED_AT_ONCE]
            is_moved = self._moved([move for _, move in some], queue)
            for request, move in some:
                if is_moved:
                    request.moved()
                elif retry_s and self._hub is not None:
                    self._hub.call_later(retry_s, partial(request.reject, requeue=True))
                else:
                    request.reject(requeue=True)
                self.settled(move.message)
        if queue in {again_queue(lane) for lane in self._lanes()}:
            self._soon(self.look)

    def _moved(self, moves: Sequence[Move], queue: str) -> bool:
        return self._mover is not None and self._done(partial(self._mover.move, moves, queue))

    def _take_first(self, queues: Iterable[str]) -> Any | None:
        return next((message for queue in queues if (message := self._take(queue)) is not None), None)

    def _take(self, queue: str) -> Any | None:
        message = None if self._mover is None else self._answer(partial(self._mover.take, queue))
        if message is not None:
            message.origin = queue
        return message

    def _done(self, act: Callable[[], object]) -> bool:
        """Whether the broker did it."""
        return self._answer(lambda: (act(),)) is not None

    def _answer(self, act: Callable[[], _T]) -> _T | None:
        """What the broker answered; None if it did not, which is said once."""
        try:
            answer = act()
        except self._errors as error:
            what = f"Messages cannot be moved between queues ({type(error).__name__}: {error}); they are given back"
            self._trouble.happened(what, kind=type(error).__name__)
            return None
        self._trouble.over("Messages are moved between queues again")
        return answer


def exhausted(message: Any) -> Reason:
    """Why a message gets no other turn."""
    return Reason.of(
        "message: {} deliveries, and each took its process down or exceeded the time limit (MDS_MAX_DELIVERIES); "
        "give the worker more memory, or send the rows in smaller messages",
        str(counted_turns(message.headers)),
    )
