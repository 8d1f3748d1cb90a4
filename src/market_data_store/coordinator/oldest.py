"""How long the oldest message of a lane has waited, where the broker can tell: Redis, of messages that say when they
were enqueued, as those of `StoreClient` do.

RabbitMQ does not show the message at the head of a queue without delivering it.
"""

from __future__ import annotations

import re
import time
from typing import Any

from redis.exceptions import RedisError

from market_data_store.coordinator.clock import plausible
from market_data_store.protocol import ENQUEUED_AT_HEADER

#: The end of the oldest message, behind its body, and the server's time. A message may have 16 MiB. The queue is an
#: argument: a user who may only read it may not name it as a key of a script.
_SCRIPT = """
local text = redis.call('LINDEX', ARGV[1], -1)
if not text then return false end
local clock = redis.call('TIME')
return {text:sub(-8192), clock[1], clock[2]}
"""
_ENQUEUED_AT = re.compile(rb'"%s": ?(\d+(?:\.\d+)?)' % ENQUEUED_AT_HEADER.encode())
_TAKEN_AT = re.compile(rb'"taken_at": ?(\d+(?:\.\d+)?)\}$')


#: Seconds between two looks at a queue: Redis copies the message.
_INTERVAL_S = 2.0


class OldestMessages:
    """Remembers the age of the oldest message of each queue. Not thread-safe."""

    def __init__(self) -> None:
        #: By queue: when it was looked at, and what was found.
        self._found: dict[str, tuple[float, float | None]] = {}

    def age_s(self, connection: Any, queue: str) -> float | None:
        """Return for how many seconds the oldest message has waited, as of at most 2 s ago.

        It is 0 for an empty queue, and None if unknown. `connection` is what `QueueInspector.lent` lends. What keeps
        Redis from answering this is left to those who ask for the depth.
        """
        now = time.monotonic()
        looked_at, found = self._found.get(queue, (float("-inf"), None))
        if now - looked_at >= _INTERVAL_S:
            found = _asked(connection, queue)
            self._found[queue] = now, found
        return found


def _asked(connection: Any, queue: str) -> float | None:
    channel = connection.default_channel
    if not hasattr(channel, "unacked_key"):
        return None
    try:
        found = channel.client.eval(_SCRIPT, 0, queue)
    except RedisError:  # such as a user without the right
        return None
    if found is None:
        return 0.0
    end, seconds, microseconds = found
    end = end if isinstance(end, bytes) else str(end).encode()
    said = _ENQUEUED_AT.findall(end) or _TAKEN_AT.findall(end)
    moment = plausible(float(said[-1])) if said else None
    return None if moment is None else max(0.0, float(seconds) + float(microseconds) / 1e6 - moment)
