from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kombu
import pytest
from kombu.exceptions import OperationalError
from kombu.transport import redis as stock

from market_data_store.app import app
from market_data_store.transport import rabbitmq, selection
from market_data_store.transport.redis import transports
from market_data_store.transport.selection import Connection


@pytest.fixture(autouse=True)
def decided_anew() -> Iterator[None]:
    selection._is_tested.cache_clear()
    yield
    selection._is_tested.cache_clear()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/2", transports.Transport),
        ("rediss://h:1/2?ssl_cert_reqs=required", transports.Transport),
        ("sentinel://h:1;sentinel://h:2", transports.SentinelTransport),
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
    assert connection.get_transport_cls() is transports.Transport


def test_each_host_is_tried_at_least_once() -> None:
    tried: list[Any] = []

    class Refusing(Connection):
        def _connection_factory(self) -> Any:
            tried.append(self.port)
            raise OSError("refused")

    connection = Refusing("amqp://h:1//;amqp://h:2//;amqp://h:3//")
    with pytest.raises(OperationalError):
        connection.ensure_connection(max_retries=0)
    assert tried == [1, 2, 3]
    with pytest.raises(OperationalError):  # as kombu calls it when a publish failed
        connection._ensure_connection(None, 0, 0, 0, 0)
    assert sorted(tried[3:]) == [1, 2, 3]


def test_the_sentinel_channel_keeps_what_is_sentinels() -> None:
    assert transports.SentinelTransport.Channel is transports.SentinelChannel
    assert transports.SentinelChannel.connection_class is stock.SentinelChannel.connection_class
    assert transports.SentinelChannel.from_transport_options == stock.SentinelChannel.from_transport_options


def test_other_brokers_get_kombus() -> None:
    assert Connection("memory://").get_transport_cls() is kombu.Connection("memory://").get_transport_cls()


def test_the_application_has_it_and_others_in_the_process_do_not() -> None:
    assert app.connection("redis://h").get_transport_cls() is transports.Transport
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
