"""Feedback to Redis: the stream that market-data-pipeline and -orchestrator read, and a channel for dashboards."""

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

#: The stream's logical name; its key has the namespace before it, as Core's RedisStreamsBus makes it.
_STREAM = "telemetry.feedback"
#: Entries kept, about: a day of heartbeats.
_MAX_LENGTH = 10_000
#: After so many seconds without a word a receiver is forgotten.
_OUTCOMES_EXPIRE_S = 120


class RedisFeedbackPublisher:
    """A Core `FeedbackPublisher`: each event is one entry of the stream, encoded by Core's own codec.

    `namespace` and `track` are those of the readers (MD_NAMESPACE, SCHEMA_TRACK).
    """

    def __init__(self, url: str, *, namespace: str = "mdp", track: str = "v1", timeout_s: float = 2.0) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        self._codec = JsonCodec(track=track)
        #: Key of the stream.
        self.stream = f"{namespace}:{namespace}.{_STREAM}"
        #: Name of the pub/sub channel, for those who only want to look.
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
        """The same, for coroutines."""
        await asyncio.to_thread(self.send, event)

    def last(self) -> FeedbackEvent | None:
        """The newest event of the stream, whoever published it."""
        return next(iter(self.recent(10)), None)

    def report(self, receiver: str, outcome: str) -> None:
        """Leave word of what became of a receiver's last event, for the health of another process."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(self._outcomes, receiver, outcome)
            pipe.expire(self._outcomes, _OUTCOMES_EXPIRE_S)
            pipe.execute()

    def reported(self) -> dict[str, str]:
        """By receiver, what `report` left."""
        outcomes: Any = self._redis.hgetall(self._outcomes)
        return {receiver.decode(): outcome.decode() for receiver, outcome in outcomes.items()}

    def recent(self, limit: int = 20) -> list[FeedbackEvent]:
        """The newest events, newest first; what is no event is left out. Raises `redis.RedisError`."""
        entries: Any = self._redis.xrevrange(self.stream, count=limit)
        return list(self._decoded(entries))

    def _decoded(self, entries: Any) -> Iterator[FeedbackEvent]:
        for key, entry in entries:
            try:
                event: FeedbackEvent = self._codec.decode(entry[b"data"], FeedbackEvent).payload
            except (ValueError, KeyError, TypeError):  # anybody may write to a stream
                logger.debug("%s: entry %s is no feedback event", self.stream, key)
                continue
            if math.isfinite(event.ts):
                yield event

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
