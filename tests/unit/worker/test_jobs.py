"""A job that cannot be started, or a message that cannot be settled, leaks no place in the pool and no message."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from market_data_store.worker.envelope import GiveBack, Outcome, Succeeded
from market_data_store.worker.headers import Headers
from market_data_store.worker.jobs import Job


class Request(SimpleNamespace):
    """A request that may be impossible to settle."""

    def on_success(self, outcome: Any) -> None:
        if self.is_stuck:
            raise OSError("the connection is lost")
        self.is_settled = True


def request(*, is_stuck: bool = False) -> Any:
    parts = {"body": b"", "content_type": None, "content_encoding": None, "enqueued_at": None, "arrived": None}
    parts["born"] = None
    message = SimpleNamespace(headers={}, delivery_info={})
    more = {"message": message, "delivery_info": {}, "unusable": None, "is_settled": False, "is_stuck": is_stuck}
    return Request(headers=Headers(id="x"), **parts, **more)


class Pool:
    def apply_async(self, *_: Any, **__: Any) -> None:
        raise ValueError("no process takes this")


@pytest.fixture
def given_back() -> list[tuple[Any, GiveBack]]:
    return []


@pytest.fixture
def consumer(given_back: list[tuple[Any, GiveBack]]) -> Any:
    aside = SimpleNamespace(held_for=lambda _: frozenset(), give_back=given_back.extend, tried=lambda *_: None)
    progress = SimpleNamespace(began=lambda: None, ended=lambda **_: None)
    return SimpleNamespace(aside=aside, progress=progress)


def job(consumer: Any, requests: list[Any], done: list[None]) -> Job:
    task: Any = SimpleNamespace(name="store.write", soft_time_limit=1, time_limit=2)
    return Job(task, requests, consumer, lambda _: done.append(None))


def test_a_job_that_cannot_be_started_gives_its_messages_back(consumer: Any, given_back: list[Any]) -> None:
    done: list[None] = []
    requests = [request(), request()]
    with pytest.raises(TaskRevokedError):  # for which Celery frees the place in the pool
        job(consumer, requests, done).execute_using_pool(Pool())
    assert [(one, outcome.counted) for one, outcome in given_back] == [(one, True) for one in requests]
    assert done == [None]


def test_one_message_that_cannot_be_settled_keeps_no_other_from_it(consumer: Any, given_back: list[Any]) -> None:
    done: list[None] = []
    requests = [request(), request(is_stuck=True), request(), request()]
    outcomes: list[Outcome] = [*[Succeeded("", 0.0)] * 3, GiveBack("later")]
    with pytest.raises(OSError, match="lost"):
        job(consumer, requests, done)._on_success((outcomes, {}))
    assert [one.is_settled for one in requests] == [True, False, True, False]
    assert [one for one, _ in given_back] == requests[3:]
    assert done == [None]
