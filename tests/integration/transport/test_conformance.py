"""What our transports promise, on each broker: the suite that a transport for another broker has to pass as well."""

from __future__ import annotations

import random
from collections.abc import Iterator

import kombu
import pytest
from support.transports import HEADERS, QUEUES, RabbitMQSide, RedisSide, Side


@pytest.fixture(params=["redis", "rabbitmq"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "redis":
        redis_side = RedisSide(request.getfixturevalue("redis_url"))
        yield redis_side
        redis_side.server.close()
    else:
        rabbitmq_side = RabbitMQSide(request.getfixturevalue("rabbitmq_url"))
        yield rabbitmq_side
        rabbitmq_side.delete_queues()


def test_messages_are_delivered_whole_and_in_order(side: Side) -> None:
    side.publish(*range(130))
    with side.consuming() as consumer:
        consumer.take(130)
        assert consumer.numbers() == list(range(130))
        for message in consumer.messages:
            assert HEADERS.items() <= message.headers.items()
            assert not side.is_redelivered(message)
        consumer.acknowledge()
    assert side.holds_nothing()


def test_several_queues_are_consumed_at_once(side: Side) -> None:
    side.publish(*range(10), queue=QUEUES[0])
    side.publish(*range(10), queue=QUEUES[1])
    with side.consuming(*QUEUES) as consumer:
        consumer.take(20)
        found = {(message.delivery_info["routing_key"], message.payload) for message in consumer.messages}
        consumer.acknowledge()
    assert found == {(queue, number) for queue in QUEUES for number in range(10)}
    assert side.holds_nothing()


def test_a_message_tells_from_which_queue_it_came(side: Side) -> None:
    for queue in QUEUES:
        side.publish(queue, queue=queue)
    with side.consuming(*QUEUES) as consumer:
        consumer.take(2)
        assert sorted((message.queue, message.payload) for message in consumer.messages) == [
            (queue, queue) for queue in sorted(QUEUES)
        ]
        consumer.acknowledge()


def test_what_is_held_of_one_queue_keeps_none_of_another_from_being_fetched(side: Side) -> None:
    side.publish(*range(10), queue=QUEUES[1])
    with side.consuming(*QUEUES, prefetch=3) as consumer:
        consumer.take(3)
        for _ in range(3):
            consumer.run_once()
        assert consumer.numbers() == [0, 1, 2]
        side.publish("a", "b", "c", "d", queue=QUEUES[0])
        consumer.take(6)
        for _ in range(3):
            consumer.run_once()
        assert consumer.numbers() == [0, 1, 2, "a", "b", "c"]
        consumer.messages[0].ack()
        consumer.take(7)
        assert consumer.numbers()[6:] == [3]
        consumer.acknowledge()


def test_a_message_that_comes_while_it_waits_is_taken(side: Side) -> None:
    side.publish()
    with side.consuming() as consumer:
        for number in range(3):
            for _ in range(2):
                consumer.run_once()
            side.publish(number)
            consumer.take(number + 1)
        assert consumer.numbers() == [0, 1, 2]


@pytest.mark.parametrize("prefetch", [1, 7, 150])
def test_no_more_is_taken_than_the_prefetch_limit_allows(side: Side, prefetch: int) -> None:
    side.publish(*range(160))
    with side.consuming(prefetch=prefetch) as consumer:
        before = 0
        for times in (1, 2):
            taken = min(160, prefetch * times)
            consumer.take(taken)
            for _ in range(3):
                consumer.run_once()
            assert len(consumer.messages) == taken
            assert side.depth() == 160 - taken
            assert side.unsettled() in (taken - before, None)
            before = taken
            consumer.acknowledge()


def test_acknowledgements_go_before_the_channel_is_closed(side: Side) -> None:
    side.publish(*range(10))
    with side.consuming(with_hub=True) as consumer:
        consumer.take(10)
        consumer.acknowledge()
    assert side.holds_nothing()


def test_a_channel_that_is_closed_gives_everything_back_in_order(side: Side) -> None:
    side.publish(*range(130))
    with side.consuming(prefetch=120) as consumer:
        consumer.take(120)
        for message in consumer.messages[:10]:
            message.ack()
    with side.consuming() as consumer:
        consumer.take(120)
        assert consumer.numbers() == list(range(10, 130))
        assert all(side.is_redelivered(message) for message in consumer.messages[:110])
        consumer.acknowledge()
    assert side.holds_nothing()


def test_what_a_lost_consumer_had_is_delivered_to_another(side: Side) -> None:
    side.publish(*range(5))
    with side.consuming() as consumer:
        consumer.take(5)
        side.lose(consumer)
    side.let_time_pass()
    with side.consuming() as consumer:
        consumer.take(5)
        assert sorted(consumer.numbers()) == list(range(5))
        assert all(side.is_redelivered(message) for message in consumer.messages)
        consumer.acknowledge()
    assert side.holds_nothing()


def test_what_is_rejected_is_gone_and_what_is_requeued_is_delivered_again(side: Side) -> None:
    side.publish(*range(3))
    with side.consuming() as consumer:
        consumer.take(3)
        rejected, requeued, kept = consumer.messages
        rejected.reject()
        requeued.requeue()
        consumer.take(4)
        assert (consumer.messages[3].payload, side.is_redelivered(consumer.messages[3])) == (requeued.payload, True)
        kept.ack()
        consumer.messages[3].ack()
    assert side.holds_nothing()


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "lost"])
@pytest.mark.parametrize("seed", range(6))
def test_an_open_message_stays_open(side: Side, seed: int, is_closed: bool) -> None:
    choose = random.Random(seed)  # noqa: S311  # no secret
    side.publish(*range(80))
    open_ = set(range(80))
    with side.consuming(with_hub=True, prefetch=60) as consumer:
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
            side.lose(consumer)
    found = set(side.left())
    assert found >= open_
    if is_closed:  # acknowledgements that are on their way are lost with the connection
        assert found == open_


def test_a_message_that_was_asked_for_is_not_acknowledged_with_others(side: Side) -> None:
    side.publish("asked for", queue="others")
    side.publish(1, 2)
    with side.consuming(with_hub=True) as consumer:
        consumer.take(2)
        assert kombu.Queue("others")(consumer.channel).get().payload == "asked for"
        side.publish(3, 4)
        consumer.take(4)
        consumer.acknowledge()
        consumer.run_once()
    assert (side.left(), side.left("others")) == ([], ["asked for"])


def test_what_needs_no_acknowledgement_is_kept_by_nobody(side: Side) -> None:
    side.publish(*range(3))
    with side.consuming(no_ack=True) as consumer:
        consumer.take(3)
        side.lose(consumer)
    assert side.holds_nothing()


def test_ours_and_kombus_share_one_queue(side: Side) -> None:
    side.publish(*range(300))
    with side.consuming(prefetch=20) as ours, side.consuming(kind=kombu.Connection, prefetch=20) as kombus:
        seen: dict[str, list[int]] = {"ours": [], "kombu's": []}
        while sum(map(len, seen.values())) < 300:
            for name, consumer in (("ours", ours), ("kombu's", kombus)):
                consumer.run_once()
                consumer.acknowledge()
                seen[name] += consumer.numbers()
                consumer.messages.clear()
    assert all(seen.values())
    assert sorted(seen["ours"] + seen["kombu's"]) == list(range(300))
    assert side.holds_nothing()


def test_a_purge_says_how_many_messages_it_deleted(side: Side) -> None:
    side.publish(*range(5))
    with side.consuming("others") as consumer:
        assert consumer.channel.queue_purge("q") == 5
    assert side.holds_nothing()
