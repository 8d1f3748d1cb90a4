from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kombu
import pytest
from kombu.transport import pyamqp
from kombu.transport import redis as stock

from market_data_store import config
from market_data_store.app import app
from market_data_store.transport import rabbitmq, selection
from market_data_store.transport.redis import channel
from market_data_store.transport.selection import Connection, unsuited


@pytest.fixture(autouse=True)
def decided_anew() -> Iterator[None]:
    def forget() -> None:
        selection._is_wanted.cache_clear()
        config.settings.cache_clear()

    forget()
    yield
    forget()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/2", channel.Transport),
        ("rediss://h:1/2?ssl_cert_reqs=required", channel.Transport),
        ("sentinel://h:1;sentinel://h:2", channel.SentinelTransport),
        ("amqp://h:1/v", rabbitmq.Transport),
        ("amqps://h:1/v", rabbitmq.SSLTransport),
    ],
)
def test_urls_get_our_transport_and_keep_the_rest(url: str, expected: type) -> None:
    connection = Connection(url)
    assert connection.get_transport_cls() is expected
    assert connection.clone().get_transport_cls() is expected
    assert issubclass(expected, kombu.Connection(url).get_transport_cls())
    assert connection.info() == kombu.Connection(url).info()


def test_a_failover_to_the_second_url_keeps_it() -> None:
    connection = Connection("redis://first;redis://second")
    connection.maybe_switch_next()
    assert connection.hostname == "second"
    assert connection.get_transport_cls() is channel.Transport


def test_the_sentinel_channel_keeps_what_is_sentinels() -> None:
    assert channel.SentinelTransport.Channel is channel.SentinelChannel
    assert channel.SentinelChannel.connection_class is stock.SentinelChannel.connection_class
    assert channel.SentinelChannel.from_transport_options == stock.SentinelChannel.from_transport_options


def test_other_brokers_get_kombus() -> None:
    assert Connection("memory://").get_transport_cls() is kombu.Connection("memory://").get_transport_cls()


def test_the_application_has_it_and_others_in_the_process_do_not() -> None:
    assert app.connection("redis://h").get_transport_cls() is channel.Transport
    assert kombu.Connection("redis://h").get_transport_cls() is stock.Transport


def test_it_is_switched_off_by_a_variable(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("MDS_STOCK_REDIS_TRANSPORT", "1")
    assert Connection("redis://h").get_transport_cls() is stock.Transport
    assert Connection("amqp://h").get_transport_cls() is rabbitmq.Transport
    assert not caplog.records


def test_this_kombu_is_the_one_that_was_tested() -> None:
    assert unsuited() is None


def test_another_kombu_is_refused() -> None:
    assert unsuited("5.8.0") == "kombu 5.8.0 is not 5.7.x"


def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(stock.Channel, "_brpop_start")


def changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def _brpop_start(self: Any, timeout: Any, keys: Any) -> None: ...

    monkeypatch.setattr(stock.Channel, "_brpop_start", _brpop_start)


@pytest.mark.parametrize("change", [gone, changed])
def test_with_other_internals_kombus_is_used_and_one_warning_says_so(
    change: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change(monkeypatch)
    for _ in range(3):
        assert Connection("redis://h").get_transport_cls() is stock.Transport
    assert Connection("sentinel://h").get_transport_cls() is stock.SentinelTransport
    assert Connection("amqp://h").get_transport_cls() is pyamqp.Transport
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("kombu.transport.redis.Channel._brpop_start is not as it was, so Celery's own")
