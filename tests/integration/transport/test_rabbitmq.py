"""What our AMQP channel does besides what `test_conformance` says of both brokers: acknowledgements go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from amqp import spec
from support.consumers import Consumer
from support.transports import RabbitMQSide


@pytest.fixture
def side(rabbitmq_url: str) -> Iterator[RabbitMQSide]:
    side = RabbitMQSide(rabbitmq_url)
    yield side
    side.delete_queues()


def acks_of(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The acknowledgements that go to the broker from now on: number of the message, and whether all below as well."""
    sent = []
    send_method = consumer.channel.send_method

    def send(method: Any, *args: Any, **kwargs: Any) -> Any:
        if method == spec.Basic.Ack:
            sent.append(args[1])
        return send_method(method, *args, **kwargs)

    monkeypatch.setattr(consumer.channel, "send_method", send)
    return sent


def test_acknowledgements_of_one_loop_turn_are_sent_as_one(side: RabbitMQSide, monkeypatch: pytest.MonkeyPatch) -> None:
    side.publish(*range(100))
    with side.consuming(with_hub=True) as consumer:
        sent = acks_of(consumer, monkeypatch)
        consumer.take(100)
        consumer.acknowledge()
        consumer.wait_until(lambda: sent)
    assert sent == [(100, True)]
    assert side.left() == []


def test_messages_above_an_open_one_are_acknowledged_singly(
    side: RabbitMQSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    side.publish(*range(6))
    with side.consuming(with_hub=True) as consumer:
        sent = acks_of(consumer, monkeypatch)
        consumer.take(6)
        for number in (5, 0, 3, 1):
            consumer.messages[number].ack()
        consumer.wait_until(lambda: len(sent) == 3)
        consumer.messages[2].reject()
        consumer.messages[4].ack()
        consumer.wait_until(lambda: len(sent) == 4)
    assert sent == [(2, True), (6, False), (4, False), (5, True)]
    assert side.left() == []


def test_without_an_event_loop_each_acknowledgement_is_sent_at_once(
    side: RabbitMQSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    side.publish(*range(3))
    with side.consuming() as consumer:
        consumer.take(3)
        sent = acks_of(consumer, monkeypatch)
        consumer.acknowledge()
        assert sent == [(1, False), (2, False), (3, False)]


def test_messages_that_came_with_an_answer_are_handed_on_by_the_loop(side: RabbitMQSide) -> None:
    side.publish(*range(30))
    with side.consuming(with_hub=True) as consumer:
        consumer.wait_until(lambda: consumer.messages)  # its answer has come, and perhaps not all messages
        for _ in range(20):
            consumer.channel.queue_declare(consumer.queues[0], passive=True)
        consumer.take(30)
        consumer.acknowledge()
    assert side.left() == []


def test_acknowledgements_on_a_lost_connection_are_dropped(
    side: RabbitMQSide, caplog: pytest.LogCaptureFixture
) -> None:
    side.publish(*range(3))
    with side.consuming(with_hub=True) as consumer:
        consumer.take(3)
        consumer.acknowledge()
        side.lose(consumer)
        consumer.channel.flush_acks()
    assert side.left() == [0, 1, 2]
    (warning,) = (r.getMessage() for r in caplog.records if r.name.startswith("market_data_store"))
    assert warning.startswith("3 acknowledged messages are redelivered (")
