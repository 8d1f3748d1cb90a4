"""A thousand random messages: the worker handles each of them, and goes on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import kombu
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, Send
from support.waiting import wait_until
from support.workers import Worker

from market_data_store.coordinator.queue import QueueInspector

MESSAGES = 1_000
#: Values that somebody's producer may put where another is expected.
ODD: list[Any] = [None, True, 0, -1, 1.5, 2**63, 2**70, "", "x", "NaN", "1e999", "\x00", "\ud800", [], {}, [[]]]
TEXTS: list[Any] = ["", "x", "\x00", "é" * 100, "[]", "application/x-python-serialize", "utf-16", "binary"]


class Fuzzer:
    """Messages that begin as good ones and are then spoilt in one to four places; the same for a seed."""

    def __init__(self, seed: int, rows: list[Bar]) -> None:
        self._chance = random.Random(seed)  # noqa: S311  # no secret
        self._rows = rows

    def messages(self, count: int) -> Iterator[dict[str, Any]]:
        """Arguments for kombu's `publish`."""
        return (self._message(number) for number in range(count))

    def _message(self, number: int) -> dict[str, Any]:
        row = dict(self._chance.choice(self._rows))
        call: list[Any] = [["bars", [row, dict(row)]], {"defaults": {"provider": "p"}}, {"callbacks": None}]
        headers: dict[str, Any] = {"task": TASK, "id": f"fuzzed-{number}", "lang": "py", "enqueued_at": 1.7e9}
        message = {"content_type": "application/json", "content_encoding": "utf-8", "headers": headers}
        body: bytes | None = None
        for _ in range(self._chance.randint(1, 4)):
            match self._chance.randrange(5):
                case 0:
                    self._replace(call)
                case 1:
                    row[self._chance.choice([*row])] = self._chance.choice(ODD)
                case 2:
                    name = self._chance.choice([*headers, "replays", "group", "expires", "eta", "retries", "timelimit"])
                    headers[name] = self._chance.choice([v for v in ODD if v not in (2**63, 2**70, "\ud800")])
                case 3:
                    message[self._chance.choice(["content_type", "content_encoding"])] = self._chance.choice(TEXTS)
                case _:
                    body = self._damaged(body or json.dumps(call).encode())
        return {**message, "body": body or json.dumps(call).encode()}

    def _replace(self, call: list[Any]) -> None:
        place = self._chance.choice([call, call[0] if call and isinstance(call[0], list) else call])
        if place:
            place[self._chance.randrange(len(place))] = self._chance.choice(ODD)

    def _damaged(self, body: bytes) -> bytes:
        start = self._chance.randrange(len(body))
        match self._chance.randrange(3):
            case 0:
                return body[:start]
            case 1:
                return body[:start] + self._chance.randbytes(self._chance.randint(1, 8)) + body[start:]
            case _:
                return body[:start] + body[start + self._chance.randint(1, 40) :]


def test_a_thousand_malformed_messages_stop_no_worker(
    worker: Worker, broker_url: str, queue: QueueInspector, send: Send, bars: list[Bar], database: Connection
) -> None:
    processes = worker.pool_pids
    declared = kombu.Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})
    with kombu.Connection(broker_url) as connection:
        producer = kombu.Producer(connection.default_channel, auto_declare=False)
        declared(connection.default_channel).declare()
        for message in Fuzzer(1, bars).messages(MESSAGES):
            producer.publish(routing_key=QUEUE, **message)
    wait_until(lambda: queue.depth() == 0, worker.whole_log()[-5_000:], timeout_s=120)
    assert send(bars[-5:]).get(timeout=60)["written"] == 5
    wait_until(lambda: queue.reserved() in (0, None), "messages are held for ever", timeout_s=60)
    assert worker.pool_pids == processes
    letters = database.execute("SELECT count(*) FROM dead_letters").fetchall()[0][0]
    stored = database.execute("SELECT count(*) FROM bars_ohlcv").fetchall()[0][0]
    assert letters > 500
    assert stored > 50
