"""What a URL of sentinels says."""

from __future__ import annotations

import json

import pytest
from kombu.utils.json import dumps

from market_data_store.connections.redis_client import sentinel_options
from market_data_store.connections.sentinel import completed, sentinel_of
from market_data_store.connections.urls import is_rabbitmq, is_redis, is_sentinel


def test_a_completed_url_says_all_that_it_takes_to_connect() -> None:
    url = "sentinels://user:p%2Fw%3A@[::1]:1/3;sentinels://two?ssl_ca_certs=%2Fa.pem"
    found = sentinel_of(completed(url, cert_reqs="required", master="m", password="s@w"))
    assert found is not None
    assert found.hosts == (("::1", 1), ("two", 26379))
    assert (found.master, found.database, found.username, found.password) == ("m", 3, "user", "p/w:")
    assert found.sentinel_password == "s@w"
    assert found.tls == {"ssl_ca_certs": "/a.pem", "ssl_cert_reqs": "required"}
    assert found.kombu_url == "sentinel://user:p%2Fw%3A@[::1]:1/3;sentinel://user:p%2Fw%3A@two/3"
    assert "p/w" not in repr(found)
    assert "s@w" not in repr(found)


def test_other_urls_name_no_sentinels() -> None:
    assert sentinel_of("redis://h") is None
    assert completed("redis://h", cert_reqs="required", master="m", password="p") == "redis://h"


def test_options_that_a_worker_shows_to_others_hide_the_password() -> None:
    found = sentinel_of(completed("sentinel://h", cert_reqs="required", master="m", password="secret"))
    assert found is not None
    options = sentinel_options(found)
    assert options["credential_provider"].get_credentials() == ("secret",)
    shown = json.loads(dumps(options))  # as in the answer to `celery inspect stats`
    assert shown["credential_provider"] == "********"
    assert "secret" not in repr(options)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", (True, False, False)),
        ("rediss://h", (True, False, False)),
        ("sentinel://h;sentinel://i", (True, True, False)),
        ("sentinels://h", (True, True, False)),
        ("amqp://h;amqp://i", (False, False, True)),
        ("amqps://h", (False, False, True)),
        ("pyamqp://h", (False, False, True)),
        ("memory://", (False, False, False)),
    ],
)
def test_which_broker_a_url_is_for(url: str, expected: tuple[bool, bool, bool]) -> None:
    assert (is_redis(url), is_sentinel(url), is_rabbitmq(url)) == expected
