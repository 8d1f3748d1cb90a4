"""kombu's Redis channel, of which only what waits for messages has its own connection (see `redis_pool`)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from kombu.transport import redis

from market_data_store.connections.redis_pool import borrowed_pool


class SharingChannel(redis.Channel):
    """A channel that opens a connection when it begins to consume, and shares the others.

    kombu's own opens two for each channel.
    """

    keyprefix_fanout: str

    @property
    def shares(self) -> bool:
        """Whether it shares; a channel to the master that Sentinel names does not."""
        return not isinstance(self, redis.SentinelChannel)

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue."""
        if self.shares and queue not in self._fanout_queues and self.client.connection is None:
            self.client.connection = self.async_pool.get_connection()  # else kombu would wait over a shared one
        return super().basic_consume(queue, *args, **kwargs)

    def close(self) -> None:
        """Send the collected acknowledgements, give the other messages back, and close."""
        try:
            super().close()
        finally:
            self._disconnect_pools()  # kombu opens new connections to give messages back, and leaves them open

    @cached_property
    def subclient(self) -> Any:
        """The connection for what is sent to all who consume."""
        return super()._create_client(asynchronous=True).pubsub()

    def _create_client(self, asynchronous: bool = False) -> Any:
        return super()._create_client(asynchronous and not self.shares)

    def _get_pool(self, asynchronous: bool = False) -> Any:
        if asynchronous or not self.shares:
            return super()._get_pool(asynchronous)
        options = self._connparams()
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=options["db"])
        return borrowed_pool(options)
