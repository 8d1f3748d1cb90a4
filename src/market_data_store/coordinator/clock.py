"""The clocks that order messages: the broker's where it tells its time (Redis), otherwise Postgres's or the producer's.

A machine's own clock may be minutes off. So producers and workers ask a server for its time now and then, and go by the
difference. `enqueued_at` decides what a message's header is worth by such a clock.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable
from mmap import mmap
from typing import Any

from celery import Celery

from market_data_store.connections.urls import is_redis
from market_data_store.coordinator.queue import DEADLINE_S, QueueInspector
from market_data_store.errors import BrokerUnavailable
from market_data_store.protocol import QUEUE

logger = logging.getLogger(__name__)

#: A header outside of these epoch seconds, the years 2000 to 9999, is not a time at which a message was enqueued.
_FIRST_S, _LAST_S = 946_684_800, 253_402_300_799
#: Seconds between two looks at a server's clock. Clocks drift by less than 10 ms in this time.
_INTERVAL_S = 60.0
#: If the machine's clock moves by more seconds than this against its monotonic one, it was set, or the machine slept:
#: the monotonic clock may then have stood still.
_STEP_S = 1.0
#: Questions in a look; the quickest answer counts.
_QUESTIONS = 3
#: A producer's clock that is off by more seconds than this is reported.
_REPORTED_S = 2.0
#: Seconds until a broker that gave no time is asked again.
_RETRY_S = 5.0


def plausible(sent: Any) -> float | None:
    """Return a header as epoch seconds; None if it is not a time at which a message can have been enqueued."""
    # NaN fails both comparisons.
    if isinstance(sent, bool) or not isinstance(sent, int | float) or not _FIRST_S <= sent <= _LAST_S:
        return None
    return float(sent)


def enqueued_at(sent: Any, now: float, *, tolerance_s: float = 0.0) -> float:
    """Return when a message was first enqueued, in epoch seconds, given its header of whatever type.

    `now` is when a worker first took it, by the clock that counts. A header that is not a plausible time, or more than
    `tolerance_s` in that clock's future, counts as `now`.
    """
    moment = plausible(sent)
    return now if moment is None or moment > now + tolerance_s else moment


class ServerClock:
    """A server's clock, as this process knows it after a `look`, and with `shared` its later children, too."""

    #: By how much the server is ahead of the monotonic clock; when that was looked at, by the monotonic clock, or 0.0
    #: before the first look; by how much the machine's clock was then ahead of the monotonic one.
    _STATE = struct.Struct("ddd")

    def __init__(self, *, shared: bool = False) -> None:
        self._state: mmap | bytearray = mmap(-1, self._STATE.size) if shared else bytearray(self._STATE.size)

    @property
    def is_known(self) -> bool:
        """Whether there was a look."""
        return bool(self._STATE.unpack_from(self._state)[1])

    @property
    def is_due(self) -> bool:
        """Whether to look: for the first time, after a minute, or after the machine's clock was set."""
        _, looked_at, ahead = self._STATE.unpack_from(self._state)
        now = time.monotonic()
        return not looked_at or now - looked_at > _INTERVAL_S or abs(time.time() - now - ahead) > _STEP_S

    def look(self, ask: Callable[[], float]) -> None:
        """Learn the server's time, in epoch seconds, from `ask`; raises what it raises."""
        error, offset = min(_asked(ask) for _ in range(_QUESTIONS))
        known, looked_at, _ = self._STATE.unpack_from(self._state)
        if looked_at and abs(offset - known) <= error:  # else the order of two messages could depend on the noise
            offset = known
        now = time.monotonic()
        self._STATE.pack_into(self._state, 0, offset, now, time.time() - now)

    def at(self, moment: float) -> float:
        """Return the server's time at a moment of `time.monotonic`; only after a look."""
        offset: float = self._STATE.unpack_from(self._state)[0]
        return offset + moment


def _asked(ask: Callable[[], float]) -> tuple[float, float]:
    """Return by how much an answer may be off, and by how much it is ahead of the monotonic clock."""
    before = time.monotonic()
    answer = ask()
    after = time.monotonic()
    return (after - before) / 2, answer - (before + after) / 2


class BrokerClock:
    """The clock of an application's broker; where the broker does not tell it, this machine's. Thread-safe."""

    def __init__(self, app: Celery) -> None:
        self._clock = ServerClock()
        self._inspector = QueueInspector(app, QUEUE)
        #: RabbitMQ does not tell its time.
        self._tells = is_redis(str(app.conf.broker_url))
        self._asking = threading.Lock()
        self._ask_at = 0.0
        self._said: set[str] = set()

    def now(self) -> float:
        """Return the time in epoch seconds, as known from the last `refresh`; never waits."""
        return self._clock.at(time.monotonic()) if self._clock.is_known else time.time()

    def refresh(self) -> None:
        """Ask the broker if that is due, which may take a second; never raises for a broker that does not answer."""
        if not (self._tells and self._clock.is_due and time.monotonic() >= self._ask_at):
            return
        # The time is known well enough while another thread asks, unless it is not known at all.
        if self._asking.acquire(timeout=0 if self._clock.is_known else 2 * DEADLINE_S):
            try:
                if self._clock.is_due and time.monotonic() >= self._ask_at:
                    self._ask()
            finally:
                self._asking.release()

    def _ask(self) -> None:
        try:
            self._clock.look(self._inspector.time)
        except BrokerUnavailable as error:
            self._ask_at = time.monotonic() + _RETRY_S
            if not self._clock.is_known:
                self._say_once("the broker does not tell its time (%s); messages carry this machine's time", error)
            return
        finally:
            self._inspector.close()
        behind = self.now() - time.time()
        if abs(behind) > _REPORTED_S:
            template = "this machine's clock is %.0f s %s the broker's; messages carry the broker's time"
            self._say_once(template, abs(behind), "behind" if behind > 0 else "ahead of")

    def _say_once(self, template: str, *values: object) -> None:
        if template not in self._said:
            self._said.add(template)
            logger.warning(template, *values)


_clocks: dict[str, BrokerClock] = {}


def broker_clock(app: Celery) -> BrokerClock:
    """Return the clock of this application's broker; applications with the same broker share it."""
    url = str(app.conf.broker_url)
    return _clocks.get(url) or _clocks.setdefault(url, BrokerClock(app))
