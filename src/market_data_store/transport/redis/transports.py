"""kombu's Redis transports with the store's channel: of one server, and of the master that Sentinel names."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis
from redis.exceptions import ResponseError

from market_data_store.errors import ConfigurationError
from market_data_store.transport.redis.channel import Channel

#: The servers that were asked and are no cluster, by host and port.
_single: set[str] = set()


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same channel, to the master that Sentinel names."""


class Transport(redis.Transport):
    """For redis:// and rediss://."""

    Channel = Channel
    #: The event loop of the worker that consumes over this connection.
    hub: Any = None

    def establish_connection(self) -> Any:
        """Connect; raises `ConfigurationError` for Redis Cluster."""
        connection = super().establish_connection()
        server = f"{self.client.hostname}:{self.client.port}"
        if server not in _single:
            try:
                _refuse_cluster(self._avail_channels[-1].client)
            except BaseException:
                self.close_connection(connection)
                raise
            _single.add(server)
        return connection

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Take the worker's event loop; called by the worker."""
        super().register_with_event_loop(connection, loop)
        self.hub = loop


class SentinelTransport(Transport, redis.SentinelTransport):
    """For sentinel://."""

    Channel = SentinelChannel


def _refuse_cluster(client: Any) -> None:
    try:
        found = client.info("cluster")
    except ResponseError:  # not for this user, or not by this server
        return
    if found.get("cluster_enabled"):
        # Its scripts and transactions use keys that a cluster has on different servers.
        raise ConfigurationError("Redis Cluster cannot be the broker; use a single primary or Sentinel")
