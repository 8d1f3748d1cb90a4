from __future__ import annotations

from collections.abc import Iterator

import kombu
import pytest
from kombu.transport import redis as stock

from market_data_store.app import app
from market_data_store.transport import rabbitmq, selection
from market_data_store.transport.redis import channel
from market_data_store.transport.selection import Connection


@pytest.fixture(autouse=True)
def decided_anew() -> Iterator[None]:
    selection._is_tested.cache_clear()
    yield
    selection._is_tested.cache_clear()


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


@pytest.mark.parametrize("url", ["redis://h", "sentinel://h", "amqp://h", "amqps://h"])
def test_with_another_kombu_its_own_is_used_and_one_warning_says_so(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kombu, "__version__", "5.8.0")
    for _ in range(3):
        assert Connection(url).get_transport_cls() is kombu.Connection(url).get_transport_cls()
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("kombu 5.8.0 is not 5.7.x, so Celery's own transports are used")
