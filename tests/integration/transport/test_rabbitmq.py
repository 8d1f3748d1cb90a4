"""Our AMQP channel against a real RabbitMQ: acknowledgements go together, and for nothing that is open.

The queues are classic ones, which apply acknowledgements before a channel is closed; quorum queues may forget some.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import kombu
import pytest
from amqp import spec
from support.consumers import Consumer, consuming

QUEUES = ("acks", "others")


@pytest.fixture
def url(rabbitmq_url: str) -> Iterator[str]:
    yield rabbitmq_url
    with kombu.Connection(rabbitmq_url) as connection:
        for name in QUEUES:
            connection.default_channel.queue_delete(name)


def publish(url: str, *bodies: object, queue: str = "acks") -> None:
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        kombu.Queue(queue, routing_key=queue)(connection.default_channel).declare()
        for body in bodies:
            connection.Producer().publish(body, routing_key=queue)


def left(url: str, queue: str = "acks") -> list[Any]:
    """The messages of the queue, which are taken out of it."""
    publish(url, "last", queue=queue)
    with consuming(url, queue) as consumer:
        consumer.wait_until(lambda: "last" in consumer.numbers())
        consumer.acknowledge()
        return sorted(body for body in consumer.numbers() if body != "last")


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


def test_acknowledgements_of_one_turn_are_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(url, *range(100))
    with consuming(url, "acks", with_hub=True) as consumer:
        sent = acks_of(consumer, monkeypatch)
        consumer.take(100)
        consumer.acknowledge()
        consumer.wait_until(lambda: sent)
    assert sent == [(100, True)]
    assert left(url) == []


def test_what_is_above_an_open_message_is_acknowledged_by_itself(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(url, *range(6))
    with consuming(url, "acks", with_hub=True) as consumer:
        sent = acks_of(consumer, monkeypatch)
        consumer.take(6)
        for number in (5, 0, 3, 1):
            consumer.messages[number].ack()
        consumer.wait_until(lambda: len(sent) == 3)
        consumer.messages[2].reject()
        consumer.messages[4].ack()
        consumer.wait_until(lambda: len(sent) == 4)
    assert sent == [(2, True), (6, False), (4, False), (5, True)]
    assert left(url) == []


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "lost"])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_open_stays_open(url: str, seed: int, is_closed: bool) -> None:
    choose = random.Random(seed)  # noqa: S311  # no secret
    publish(url, *range(80))
    open_ = set(range(80))
    with consuming(url, "acks", with_hub=True, prefetch=60) as consumer:
        consumer.take(60)
        for message in choose.sample(consumer.messages, 45):
            match choose.choice(["ack", "ack", "ack", "reject", "requeue"]):
                case "ack":
                    message.ack()
                case "reject":
                    message.reject()
                case "requeue":
                    message.requeue()
                    continue
            open_.discard(message.payload)
            if choose.random() < 0.2:
                consumer.run_once()
        if not is_closed:
            consumer.run_once()
            consumer.connection.collect()
    found = set(left(url))
    assert found >= open_
    if is_closed:  # acknowledgements that are on their way are lost with the connection
        assert found == open_


def test_a_message_that_was_asked_for_is_not_acknowledged_with_others(url: str) -> None:
    publish(url, "asked for", queue="others")
    publish(url, 1, 2)
    with consuming(url, "acks", with_hub=True) as consumer:
        consumer.take(2)
        assert kombu.Queue("others")(consumer.channel).get().payload == "asked for"
        publish(url, 3, 4)
        consumer.take(4)
        consumer.acknowledge()
        consumer.run_once()
    assert (left(url), left(url, "others")) == ([], ["asked for"])


def test_without_an_event_loop_each_goes_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(url, *range(3))
    with consuming(url, "acks") as consumer:
        consumer.take(3)
        sent = acks_of(consumer, monkeypatch)
        consumer.acknowledge()
        assert sent == [(1, False), (2, False), (3, False)]


def test_on_a_connection_that_is_lost_they_are_void(url: str, caplog: pytest.LogCaptureFixture) -> None:
    publish(url, *range(3))
    with consuming(url, "acks", with_hub=True) as consumer:
        consumer.take(3)
        consumer.acknowledge()
        consumer.connection.collect()
        consumer.channel.flush_acks()
    assert left(url) == [0, 1, 2]
    (warning,) = (r.getMessage() for r in caplog.records if r.name.startswith("market_data_store"))
    assert warning.startswith("3 acknowledged messages are redelivered (")
