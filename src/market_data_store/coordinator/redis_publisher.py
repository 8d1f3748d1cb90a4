"""Feedback to Redis: to the stream that market-data-pipeline and -orchestrator read, and to a pub/sub channel.

Both get the events of live rows alone. Those of the backfill lane go to a stream of their own, and to no channel.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

from market_data_core.events.codecs import JsonCodec
from redis.exceptions import ResponseError

from market_data_store.connections.redis_client import connected
from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE

logger = logging.getLogger(__name__)

#: The logical name of each lane's stream. Its key is prefixed with the namespace, as by Core's RedisStreamsBus.
_STREAMS = {QUEUE: "telemetry.feedback", BACKFILL_QUEUE: "telemetry.feedback.backfill"}
#: About how many entries the stream keeps: a day of heartbeats.
_MAX_LENGTH = 10_000
#: An event of more bytes is not from a monitor; nor is one whose time is more than so many seconds ahead.
_MAX_BYTES = 16_384
_AHEAD_S = 60.0
#: A receiver's outcome is forgotten after this many seconds without a new one.
_OUTCOMES_EXPIRE_S = 120


class RedisFeedbackPublisher:
    """A Core `FeedbackPublisher`: each event is one entry of the stream, encoded by Core's codec.

    `namespace` and `track` must be those of the readers (MD_NAMESPACE, SCHEMA_TRACK). `queue` says of which lane the
    events are.
    """

    def __init__(
        self, url: str, *, namespace: str = "mdp", track: str = "v1", timeout_s: float = 2.0, queue: str = QUEUE
    ) -> None:
        self._redis = connected(url, timeout_s=timeout_s)
        self._codec = JsonCodec(track=track)
        #: Key of the stream.
        self.stream = f"{namespace}:{namespace}.{_STREAMS[queue]}"
        #: Name of the pub/sub channel, for dashboards; empty for the backfill lane, which has none.
        self.channel = f"{namespace}.{_STREAMS[queue]}" if queue == QUEUE else ""
        self._outcomes = f"{namespace}:mds.feedback.outcomes"

    def send(self, event: FeedbackEvent) -> None:
        """Append the event to the stream and announce it on the channel; raises `redis.RedisError`."""
        data = self._codec.encode(FeedbackEvent.__schema_id__, event, key=event.coordinator_id)
        try:
            self._send(data, event)
        except ResponseError:
            if not self._is_blocked():
                raise
            logger.warning("%s held an entry that let no other be added; it was deleted", self.stream)
            self._redis.delete(self.stream)
            self._send(data, event)

    def _send(self, data: Any, event: FeedbackEvent) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(self.stream, {"data": data}, maxlen=_MAX_LENGTH, approximate=True)
            if self.channel:
                pipe.publish(self.channel, event.model_dump_json())
            pipe.execute()

    def _is_blocked(self) -> bool:
        """Whether the key is not a stream, or the stream has the id of a moment to come.

        Redis gives no entry a lower id than the last, and has none higher than the highest.
        """
        kind = self._redis.type(self.stream)
        if kind != b"stream":
            return bool(kind != b"none")
        information: Any = self._redis.xinfo_stream(self.stream)
        return int(information["last-generated-id"].partition(b"-")[0]) / 1e3 > time.time() + _AHEAD_S

    async def publish(self, event: FeedbackEvent) -> None:
        """Publish the event as `send` does, without blocking the event loop."""
        await asyncio.to_thread(self.send, event)

    def last(self) -> FeedbackEvent | None:
        """Return the newest event of the stream, whoever published it; None if there is none."""
        return next(iter(self.recent(10)), None)

    def report(self, receiver: str, outcome: str) -> None:
        """Store the outcome of a receiver's last event, for the health checks of another process."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(self._outcomes, receiver, outcome)
            pipe.expire(self._outcomes, _OUTCOMES_EXPIRE_S)
            pipe.execute()

    def forget_reported(self) -> None:
        """Forget the outcomes, else those of a receiver that is gone would stay; raises `redis.RedisError`."""
        self._redis.delete(self._outcomes)

    def reported(self) -> dict[str, str]:
        """Return the outcomes that `report` stored, by receiver."""
        outcomes: Any = self._redis.hgetall(self._outcomes)
        return {receiver.decode(): outcome.decode() for receiver, outcome in outcomes.items()}

    def recent(self, limit: int = 20) -> list[FeedbackEvent]:
        """Return the newest events, newest first, without entries that are not events; raises `redis.RedisError`."""
        entries: Any = self._redis.xrevrange(self.stream, count=limit)
        return list(self._decoded(entries))

    def _decoded(self, entries: Any) -> Iterator[FeedbackEvent]:
        for key, entry in entries:
            try:
                data = entry[b"data"]
                if len(data) > _MAX_BYTES:
                    raise ValueError("too large")
                event: FeedbackEvent = self._codec.decode(data, FeedbackEvent).payload
            except (ValueError, KeyError, TypeError, RecursionError):  # anybody can write to the stream
                logger.debug("%s: entry %s is not a feedback event", self.stream, key)
                continue
            if math.isfinite(event.ts) and event.ts <= time.time() + _AHEAD_S:
                yield event

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
