"""A broker that is away or takes no writes is said once, and tried again with a growing pause."""

from __future__ import annotations

import logging

import pytest
from celery.worker.consumer import consumer
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import OutOfMemoryError, ReadOnlyError

from market_data_store.worker.outage import CELERY_LOGGER, LONGEST_PAUSE_S, Outage, said_of, unsaid


def refused(kind: type[Exception], code: str, text: str) -> Exception:
    error = kind(text)
    error.status_code = code  # type: ignore[attr-defined]  # as redis-py sets it
    return error


READ_ONLY = refused(ReadOnlyError, "READONLY", "You can't write against a read only replica.")
FULL = refused(OutOfMemoryError, "OOM", "command not allowed when used memory > 'maxmemory'.")


def test_each_cause_is_said_once_and_the_end_too(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    outage = Outage(lambda: now)
    for error in (Lost("Connection refused."), READ_ONLY, Lost("Connection reset."), READ_ONLY):
        outage.failed(error)
    now = 120.0
    outage.over()
    outage.over()
    now = 150.0
    outage.failed(READ_ONLY)
    assert [record.getMessage() for record in caplog.records] == [
        "The broker does not answer: Connection refused; waiting",
        "Redis is read-only; waiting",
        "The broker works again, after 20 s",
        "Redis is read-only; waiting",
    ]


def test_the_pause_grows_and_begins_anew_with_the_next_outage() -> None:
    outage = Outage()
    pauses = [outage.failed(READ_ONLY) for _ in range(8)]
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    outage.over()
    assert outage.failed(READ_ONLY) == 0.0


def test_messages_that_cannot_be_acknowledged_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    for tag in range(3):
        outage.critical("Couldn't ack %r, reason:%r", tag, OSError(), exc_info=True)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "Messages cannot be acknowledged on a lost connection; they will be redelivered"
    ]


def test_what_a_redis_refuses_has_a_name() -> None:
    assert said_of(READ_ONLY) == "Redis is read-only"
    assert said_of(FULL) == "Redis is full (maxmemory)"
    assert said_of(OSError(111, "Connection refused")) == "The broker does not answer: [Errno 111] Connection refused"


def test_celerys_consumer_says_nothing_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    assert consumer.logger.name == CELERY_LOGGER
    with unsaid(CELERY_LOGGER):
        consumer.logger.warning("lost")
    consumer.logger.warning("heard")
    assert [record.getMessage() for record in caplog.records] == ["heard"]
