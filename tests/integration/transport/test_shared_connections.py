"""The threads of a process share their connections to a Redis."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import kombu
import pytest
import redis
from support.waiting import wait_until

from market_data_store.connections.redis_pool import shared_redis
from market_data_store.local import start_valkey
from market_data_store.transport.selection import Connection


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A server that no other test of this process has a connection to."""
    with start_valkey(tmp_path / "valkey") as server:
        yield server.url


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


class Opened:
    """The connections to a database that a server has now and had not when this was made.

    By id, as the server may not know yet that those of the test before were closed.
    """

    def __init__(self, admin: redis.Redis) -> None:
        self._admin = admin
        self._before = self._ids()

    def _ids(self) -> set[str]:
        mine = self._admin.client_info()
        return {client["id"] for client in self._admin.client_list() if client["db"] == str(mine["db"])}

    def __len__(self) -> int:
        return len(self._ids() - self._before)

    def wait_for(self, number: int) -> None:
        """Wait until it is the number; a server learns of a closed connection a little later."""
        wait_until(lambda: len(self) == number, lambda: f"{number} connections, there are {len(self)}")


def test_users_share_two_connections_and_the_last_one_closes_them(redis_url: str, admin: redis.Redis) -> None:
    opened = Opened(admin)
    clients = [shared_redis(redis_url, timeout_s=5.0) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: clients[n % 4].blpop(["nothing"], timeout=0.1), range(8)))
    assert len(opened) == 2
    for client in clients[:3]:
        client.close()
    assert clients[3].ping()
    assert len(opened) == 2
    clients[3].close()
    opened.wait_for(0)


def test_each_user_has_its_own_time_out(redis_url: str) -> None:
    with (
        closing(shared_redis(redis_url, timeout_s=0.2)) as hasty,
        closing(shared_redis(redis_url, timeout_s=5)) as calm,
    ):
        for _ in range(2):  # over the same connection in turn
            started = time.monotonic()
            with pytest.raises(redis.TimeoutError):
                hasty.blpop(["nothing"], timeout=3)
            assert time.monotonic() - started < 2
            assert calm.blpop(["nothing"], timeout=0.5) is None


def test_a_channel_has_its_own_connection_only_while_it_consumes(redis_url: str, admin: redis.Redis) -> None:
    opened = Opened(admin)
    with Connection(redis_url) as connection:
        channels = [connection.channel() for _ in range(3)]
        assert len(opened) == 1
        kombu.Consumer(channels[0], [kombu.Queue("shared.connections")], on_message=print).consume()
        assert len(opened) == 2
    opened.wait_for(0)


def test_a_child_process_has_connections_of_its_own(redis_url: str) -> None:
    with closing(shared_redis(redis_url, timeout_s=5.0)) as client:
        own = client.client_id()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, str(shared_redis(redis_url, timeout_s=5.0).client_id()).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert int(os.read(reader, 100)) != own
        assert client.client_id() == own
    os.close(reader)
    os.close(writer)
