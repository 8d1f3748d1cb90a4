"""A Redis that takes no message: the client's error has its words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from support.brokers import on_redis

from market_data_store.errors import BrokerUnavailable
from market_data_store.producer.client import StoreClient

ROW = {"ts": "2024-01-01T00:00:00Z", "symbol": "A", "provider": "p", "name": "n", "value": 1}


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 0)


def refusal(producer: Celery, *, confirm: bool) -> str:
    client = StoreClient(app=producer, confirm=confirm)
    client.write("signals", [ROW])
    with pytest.raises(BrokerUnavailable) as caught:
        client.flush()
    with pytest.raises(BrokerUnavailable):
        client.close()
    return str(caught.value)


@on_redis
@pytest.mark.parametrize("confirm", [False, True])
def test_a_full_redis_is_named(producer: Celery, server: redis.Redis, confirm: bool) -> None:
    server.config_set("maxmemory", 1)
    said = refusal(producer, confirm=confirm)
    assert "took no message (OOM command not allowed when used memory > 'maxmemory')" in said


@on_redis
def test_a_read_only_redis_is_named(producer: Celery, server: redis.Redis) -> None:
    server.replicaof("127.0.0.1", "1")
    assert "took no message (READONLY You can't write against a read only replica)" in refusal(producer, confirm=False)
