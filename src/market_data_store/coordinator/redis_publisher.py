"""Feedback to Redis: to the stream that market-data-pipeline and -orchestrator read, and to a pub/sub channel."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator
from typing import Any

import redis
from market_data_core.events.codecs import JsonCodec

from market_data_store.coordinator.feedback import FeedbackEvent

logger = logging.getLogger(__name__)

#: The stream's logical name. Its key is prefixed with the namespace, as by Core's RedisStreamsBus.
_STREAM = "telemetry.feedback"
#: About how many entries the stream keeps: a day of heartbeats.
_MAX_LENGTH = 10_000
#: A receiver's outcome is forgotten after this many seconds without a new one.
_OUTCOMES_EXPIRE_S = 120


class RedisFeedbackPublisher:
    """A Core `FeedbackPublisher`: each event is one entry of the stream, encoded by Core's codec.

    `namespace` and `track` must be those of the readers (MD_NAMESPACE, SCHEMA_TRACK).
    """

    def __init__(self, url: str, *, namespace: str = "mdp", track: str = "v1", timeout_s: float = 2.0) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        self._codec = JsonCodec(track=track)
        #: Key of the stream.
        self.stream = f"{namespace}:{namespace}.{_STREAM}"
        #: Name of the pub/sub channel, for dashboards.
        self.channel = f"{namespace}.{_STREAM}"
        self._outcomes = f"{namespace}:mds.feedback.outcomes"

    def send(self, event: FeedbackEvent) -> None:
        """Append the event to the stream and announce it on the channel; raises `redis.RedisError`."""
        data = self._codec.encode(FeedbackEvent.__schema_id__, event, key=event.coordinator_id)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(self.stream, {"data": data}, maxlen=_MAX_LENGTH, approximate=True)
            pipe.publish(self.channel, event.model_dump_json())
            pipe.execute()

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
                event: FeedbackEvent = self._codec.decode(entry[b"data"], FeedbackEvent).payload
            except (ValueError, KeyError, TypeError):  # anybody can write to the stream
                logger.debug("%s: entry %s is not a feedback event", self.stream, key)
                continue
            if math.isfinite(event.ts):
                yield event

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
