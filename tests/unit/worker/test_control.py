"""Which broadcasts a worker answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.utils.time import utcoffset
from celery.worker.control import Panel

from market_data_store.config import settings
from market_data_store.coordinator.events import readable
from market_data_store.worker.control import QUESTIONS, QuestionNode


class Node(QuestionNode):
    """Notes what it would run."""

    ran: Any = None

    def dispatch(self, method: Any, arguments: Any = None, reply_to: Any = None, ticket: Any = None, **_: Any) -> None:
        self.ran = (method, arguments, reply_to)


@pytest.fixture
def node() -> Node:
    mailbox = SimpleNamespace(
        reply_exchange=SimpleNamespace(name="reply.celery.pidbox"), clock=SimpleNamespace(adjust=0)
    )
    return Node("worker@here", handlers=dict(Panel.data), mailbox=mailbox)


def ran(node: Node, body: Any) -> Any:
    node.ran = None
    node.handle_message(body)
    return node.ran


def test_questions_are_answered(node: Node) -> None:
    reply_to = {"exchange": "reply.celery.pidbox", "routing_key": "somebody"}
    for method in QUESTIONS:
        assert ran(node, {"method": method, "reply_to": reply_to, "ticket": "t"}) == (method, {}, reply_to)
    asked = {"method": "query_task", "arguments": {"ids": ["x"], "other": 1}, "destination": ["worker@here"]}
    assert ran(node, asked) == ("query_task", {"ids": ["x"]}, None)


@pytest.mark.parametrize(
    "body",
    [
        *({"method": method} for method in sorted(Panel.data.keys() - QUESTIONS)),
        *([1], 5, None, "ping", {}, {"method": 5}, {"method": "x" * 300}, {"method": "ping", "destination": "worker"}),
        {"method": "ping", "destination": ["worker@there"]},
        {"method": "ping", "arguments": [1]},
        {"method": "ping", "pattern": "(a+)+$", "matcher": "pcre"},
        {"method": "ping", "reply_to": {"exchange": "", "routing_key": "store.write"}},
        {"method": "ping", "reply_to": {"exchange": 5}},
    ],
    ids=repr,
)
def test_anything_else_is_dropped(body: Any, node: Node) -> None:
    assert ran(node, body) is None


def test_a_setting_allows_celerys_commands(monkeypatch: pytest.MonkeyPatch, node: Node) -> None:
    monkeypatch.setenv("MDS_REMOTE_CONTROL", "true")
    settings.cache_clear()
    allowed = Node("worker@here", handlers=dict(Panel.data), mailbox=node.mailbox)
    settings.cache_clear()
    assert ran(allowed, {"method": "shutdown"}) == ("shutdown", {}, None)


EVENT = {
    "type": "worker-heartbeat",
    "hostname": "w",
    "timestamp": 1.7e9,
    "clock": 5,
    "active": 1,
    "loadavg": [1, 0.5, 0],
}


ODD: tuple[Any, ...] = ("\x00" * 300, [1], {}, -(10**400), float("nan"))


def test_an_event_is_read() -> None:
    assert readable({**EVENT, "sw_ver": "5", "long": "x" * 99_999}) == {**EVENT, "sw_ver": "5"}


@pytest.mark.parametrize("hours", [0.0, -7, 5.5, utcoffset()])
def test_an_event_of_any_time_zone_is_read(hours: float) -> None:
    assert readable({**EVENT, "utcoffset": hours}) == {**EVENT, "utcoffset": hours}


@pytest.mark.parametrize(
    "changed",
    [
        *({name: value} for name in EVENT for value in ODD),
        {"type": "task-received"},
        {"utcoffset": 1_000},
        {"freq": 0},
        {"runtime": "x"},
    ],
    ids=repr,
)
def test_a_malformed_event_is_ignored(changed: dict[str, Any]) -> None:
    assert readable({**EVENT, **changed}) is None


NO_EVENTS: list[Any] = [[1], 5, None, "x", {}, {"a": 1}]


@pytest.mark.parametrize("value", NO_EVENTS, ids=repr)
def test_what_is_not_an_event_is_ignored(value: Any) -> None:
    assert readable(value) is None
