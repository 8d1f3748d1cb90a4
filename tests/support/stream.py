"""The stream of feedback, as the neighbours read it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import redis
from market_data_core.events.codecs import JsonCodec

from market_data_store.coordinator.feedback import FeedbackEvent
from support.waiting import wait_until

STREAM = "mdp:mdp.telemetry.feedback"


class Stream:
    """The stream of feedback, read as the neighbours read it."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)

    def events(self) -> list[FeedbackEvent]:
        entries: Any = self.client.xrange(STREAM)
        return [JsonCodec().decode(fields[b"data"], FeedbackEvent).payload for _, fields in entries]

    def states(self) -> list[tuple[str, str | None]]:
        """Level and reason, changes only."""
        states = [(event.level.value, event.reason) for event in self.events()]
        return states[:1] + [new for old, new in pairwise(states) if new != old]

    def wait_for(self, level: str, reason: str | None = None, *, timeout_s: float) -> FeedbackEvent:
        wait_until(
            lambda: [(e.level.value, e.reason) for e in self.events()[-1:]] == [(level, reason)],
            f"{level} ({reason}) in {self.states()}",
            timeout_s=timeout_s,
        )
        return self.events()[-1]
