"""Checks of a RabbitMQ: the type of its queues, its policy and its management API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed
from celery import Celery

from market_data_store.coordinator.management import QueueFacts, facts_of
from market_data_store.coordinator.queue import DEADLINE_S, QueueInspector
from market_data_store.errors import BrokerUnavailable
from market_data_store.protocol import LANES
from market_data_store.status.doctor.finding import Finding, error, ok, skipped, warning

#: The version on which the store is tested, and the first that drops what was returned too often.
_OLDEST, _LIMITS_FROM = (3, 10), (4, 0)
_POLICY = "set the policy of docs/dead-letters.md (RabbitMQ's own limit)"


@dataclass(frozen=True)
class RabbitFacts:
    """What the broker says over AMQP, and what its management API adds."""

    version: str
    #: By queue: its type, empty if there is no such queue, None if this user may not know.
    types: Mapping[str, str | None]
    #: By queue; None without a management API, or why it does not answer.
    managed: Mapping[str, QueueFacts] | str | None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version's first two numbers."""
        return tuple(int(number) for number in self.version.split(".")[:2] if number.isdecimal())


def ask(app: Celery, inspector: QueueInspector, management_url: str) -> RabbitFacts:
    """Ask the broker once; raises `BrokerUnavailable`."""
    with inspector.lent() as connection:
        properties = connection.default_channel.connection.server_properties
        types = {queue: _type_of(app, connection, queue) for queue in LANES.values()}
    return RabbitFacts(str(properties.get("version", "")), types, _managed(app, types, management_url))


def _type_of(app: Celery, connection: Any, name: str) -> str | None:
    """Return the type of a queue. Only one that is there is declared again, which changes nothing or is refused."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, passive=True)
        with connection.channel() as channel:
            app.amqp.queues[name].bind(channel).queue_declare()
    except NotFound:
        return ""
    except PreconditionFailed:
        return "other"
    except AccessRefused:
        return None
    return "quorum"


def _managed(app: Celery, types: Mapping[str, str | None], url: str) -> Mapping[str, QueueFacts] | str | None:
    if not url:
        return None
    broker = str(app.conf.broker_url)
    try:
        return {queue: facts_of(queue, broker, url, DEADLINE_S) for queue, type_ in types.items() if type_ != ""}
    except BrokerUnavailable as away:
        return str(away)


def version(family: str, part: RabbitFacts) -> Iterator[Finding]:
    """Judge the version."""
    if part.numbers and part.numbers < _OLDEST:
        yield warning(
            f"{family}.version", f"RabbitMQ is {part.version}", "the store is tested from 3.10 on; upgrade it"
        )
    else:
        yield ok(f"{family}.version", f"RabbitMQ {part.version}")


def queues(family: str, part: RabbitFacts) -> Iterator[Finding]:
    """Judge whether the queues are quorum queues, which outlive a node and confirm what is on disk."""
    check = f"{family}.queues"
    wrong = [queue for queue, type_ in part.types.items() if type_ not in ("quorum", "", None)]
    for queue in wrong:
        yield error(
            check,
            f"the queue {queue} is not a quorum queue as workers declare it; they cannot consume it",
            f"let it run empty, `rabbitmqctl delete_queue {queue}`, and start a worker, which makes it again",
        )
    if not wrong:
        absent = [queue for queue, type_ in part.types.items() if type_ == ""]
        unknown = [queue for queue, type_ in part.types.items() if type_ is None]
        if unknown:
            yield skipped(check, f"the user may not declare {', '.join(unknown)}, so their type is unknown")
        elif absent:
            yield ok(check, f"{', '.join(absent)}: not there yet; the first worker makes it")
        else:
            yield ok(check, f"{', '.join(part.types)}: quorum queues")


def management(family: str, part: RabbitFacts) -> Iterator[Finding]:
    """Say whether the management API answers, if it is configured."""
    check = f"{family}.management"
    if part.managed is None:
        yield ok(check, "MDS_RABBITMQ_MANAGEMENT_URL is not set; the messages that workers hold are not counted")
    elif isinstance(part.managed, str):
        yield warning(
            check,
            f"MDS_RABBITMQ_MANAGEMENT_URL: {part.managed}",
            "check the URL, the plugin and the user's tag `monitoring`",
        )
    else:
        yield ok(check, "the management API answers")


def policy(family: str, part: RabbitFacts) -> Iterator[Finding]:
    """Judge the policy of the queues, without which RabbitMQ 4 drops what was returned 20 times."""
    check = f"{family}.policy"
    if part.numbers < _LIMITS_FROM:
        yield ok(check, f"RabbitMQ {part.version} has no limit of deliveries of its own")
    elif part.managed is None or isinstance(part.managed, str):
        yield skipped(check, "only the management API shows policies (MDS_RABBITMQ_MANAGEMENT_URL)")
    else:
        without = [
            queue
            for queue, facts in part.managed.items()
            if not {"delivery-limit", "dead-letter-exchange"} <= facts.policy.keys()
        ]
        if without:
            yield warning(
                check,
                f"{', '.join(without)}: RabbitMQ drops a message after 20 returns, and no policy keeps it",
                _POLICY,
            )
        else:
            yield ok(check, "a policy keeps what is returned too often")
