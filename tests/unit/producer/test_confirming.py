"""Which results make a message safe, and when a message without a result is re-sent."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from market_data_store.errors import BrokerUnavailable
from market_data_store.producer.confirming import Confirming
from market_data_store.producer.messages import Message
from market_data_store.producer.results import verdict
from market_data_store.protocol import Counts

WRITTEN = {"written": 3, "unchanged": 1, "stale": 0, "rejected": 1}


class Answers:
    """Results as a test wants them."""

    reply_to = "here"

    def __init__(self) -> None:
        self.results: dict[str, dict[str, Any]] | None = {}

    def prepare(self) -> None:
        pass

    def fetch(self, task_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        if self.results is None:
            raise BrokerUnavailable("results cannot be read")
        return self.results

    def close(self) -> None:
        pass


def sent(confirming: Confirming, rows: int, now: float = 0.0) -> Message:
    message = Message("bars", b"{}", rows=rows, size=10 * rows, sent_at=time.time())
    confirming.add(message, now)
    return message


@pytest.mark.parametrize(
    ("status", "result", "expected"),
    [
        ("SUCCESS", WRITTEN, Counts(written=3, unchanged=1, rejected=1)),
        ("FAILURE", {"exc_type": "InvalidMessage", "exc_message": ["rows: missing"]}, Counts(rejected=5)),
        ("REVOKED", {"exc_type": "TaskRevokedError"}, Counts(rejected=5)),
        ("FAILURE", {"exc_type": "TimeLimitExceeded"}, None),
        ("FAILURE", {"exc_type": "NotRegistered"}, None),
        ("SUCCESS", "somebody else's", None),
        ("STARTED", None, None),
        ("RETRY", None, None),
    ],
)
def test_rows_are_safe_when_committed_or_kept_as_dead_letters(
    status: str, result: Any, expected: Counts | None
) -> None:
    assert verdict({"status": status, "result": result}, 5) == expected


def test_results_are_summed_and_say_which_rows_were_rejected() -> None:
    confirming = Confirming(Answers(), 60, lambda: 10)
    first, second, third = (sent(confirming, rows) for rows in (10, 5, 5))
    done = {"status": "SUCCESS", "result": WRITTEN}
    assert confirming.settle({second.task_id: done, "of somebody else": done}, 1.0) == [second]
    assert (confirming.sent, confirming.rows, confirming.bytes, len(confirming)) == (20, 15, 150, 2)
    assert confirming.counts == Counts(written=3, unchanged=1, rejected=1)
    assert confirming.rejecting == {second.task_id: 10}
    assert confirming.wanted(100.0) == [first.task_id, third.task_id]
    assert confirming.settle({second.task_id: done}, 2.0) == [], "a result of the same task that comes later"


def test_a_message_goes_again_after_the_deadline_which_doubles() -> None:
    confirming = Confirming(Answers(), 60, lambda: 10)
    message, now = sent(confirming, 5), 0.0
    for deadline_s in (60, 120, 240, 480, 960, 960):
        assert not confirming.is_overdue(now + deadline_s - 1)
        assert confirming.take_overdue(now + deadline_s - 1, 10) == []
        now += deadline_s + 1
        assert confirming.is_overdue(now)
        assert confirming.take_overdue(now, 10) == [message]
        assert (len(confirming), confirming.sent) == (0, 5)
        message.sent_at = time.time()
        confirming.add(message, now)


def test_what_an_earlier_process_sent_has_its_deadline_from_then() -> None:
    confirming = Confirming(Answers(), 60, lambda: 10)
    message = Message("bars", b"{}", rows=5, sent_at=time.time() - 50)
    confirming.add(message, 0.0)
    assert confirming.take_overdue(5.0, 10) == []
    assert confirming.take_overdue(15.0, 10) == [message]


def test_no_more_go_again_than_there_is_room_for_and_the_oldest_first() -> None:
    confirming = Confirming(Answers(), 60, lambda: 10)
    messages = [sent(confirming, 5) for _ in range(5)]
    assert confirming.take_overdue(100.0, 0) == []
    assert confirming.take_overdue(100.0, 2) == messages[:2]
    assert confirming.take_overdue(100.0, 9) == messages[2:]


def test_results_that_cannot_be_read_are_asked_for_later(caplog: pytest.LogCaptureFixture) -> None:
    answers = Answers()
    confirming = Confirming(answers, 60, lambda: 10)
    sent(confirming, 5)
    answers.results = None
    for now in (1.0, 2.5):
        wanted = confirming.wanted(now)
        assert confirming.settle(confirming.fetch(wanted), now) == []
        assert confirming.wanted(now + 0.9) == []
        assert confirming.wanted(now + 1.1) == wanted
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"written": 3, "unchanged": 2, "stale": 1, "rejected": 0}, Counts(written=3, unchanged=2, stale=1)),
        (
            {"rejected": 1, "written": 3, "unchanged": 0, "stale": 0, "superseded": 2, "reasons": [{"letter": 1}]},
            Counts(rejected=1, written=3, superseded=2),
        ),
    ],
    ids=["version 0.4", "with what is new"],
)
def test_results_of_any_version_are_read(result: dict[str, Any], expected: Counts) -> None:
    assert verdict({"status": "SUCCESS", "result": result}, 6) == expected


def test_rows_are_safe_up_to_the_first_message_without_a_result_also_if_that_is_sent_again() -> None:
    confirming = Confirming(Answers(), 60, lambda: 10)
    assert confirming.safe == 0
    first, second, third = (sent(confirming, rows) for rows in (10, 5, 5))
    done = {"status": "SUCCESS", "result": WRITTEN}
    confirming.settle({second.task_id: done}, 1.0)
    assert confirming.safe == 0
    assert confirming.take_overdue(100.0, 1) == [first]
    assert confirming.safe == 0, "it waits to be sent again"
    confirming.add(first, 100.0)
    confirming.settle({first.task_id: done}, 101.0)
    assert confirming.safe == 15
    confirming.settle({third.task_id: done}, 102.0)
    assert confirming.safe == 20
