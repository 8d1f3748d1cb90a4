"""Rows and messages that can never be written: each becomes one dead letter, and the worker goes on."""

from __future__ import annotations

import json
import pickle
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, Send, StartWorker
from support.waiting import wait_until
from support.workers import Worker

#: Stands in every bad row and message, and in no log.
MARKER = "CONFIDENTIAL"
LONG = 10_000_000

#: What is wrong with a row, and how the dead letter's reason begins.
BAD_ROWS: list[tuple[Any, str]] = [
    ([MARKER], f"row: expected an object, got ['{MARKER}']"),
    (None, "row: expected an object, got None"),
    ({"symbol": None}, "symbol: null (key column); give it in the row or in defaults"),
    ({"symbol": f"{MARKER}\0"}, f"symbol: '{MARKER}\\x00' holds a NUL character"),
    (
        {"symbol": "x" * LONG},
        f"symbol: '{'x' * 79}... (10,000,002 characters) is too long; send at most 128 characters",
    ),
    ({"interval": ""}, "interval: '' is empty"),
    ({"ts": "2024-02-30T00:00:00Z"}, "ts: '2024-02-30T00:00:00Z' is not a time; send ISO 8601"),
    ({"ts": MARKER}, f"ts: '{MARKER}' is not a time; send ISO 8601"),
    ({"open": float("nan")}, "open: nan is not a finite number"),
    ({"high": float("inf")}, "high: inf is not a finite number"),
    ({"low": "-Infinity"}, "low: '-Infinity' is not a finite number"),
    ({"close": MARKER}, f"close: '{MARKER}' is not a number"),
    ({"volume": 2**64}, "volume: 18446744073709551616 is beyond 64 bits"),
    ({"trade_count": 2**63}, "trade_count: 9223372036854775808 is beyond 64 bits"),
    ({"trade_count": 1.5}, "trade_count: 1.5 is not an integer"),
]


def test_a_bad_row_leaves_one_letter_and_the_others_are_written(
    worker: Worker, send: Send, bars: list[Bar], stored: Callable[[], list[Bar]], database: Connection
) -> None:
    bad = [{**bars[0], "note": MARKER, **wrong} if isinstance(wrong, dict) else wrong for wrong, _ in BAD_ROWS]
    rows = [row for pair in zip(bars, bad, strict=False) for row in pair]
    processes = worker.pool_pids
    result = send(rows, task_id="sent twice")
    found = result.get(timeout=20)
    reasons = found.pop("reasons")
    assert found == {"written": len(bad), "unchanged": 0, "stale": 0, "rejected": len(bad)}
    send(rows, task_id="sent twice")
    assert send(bars[:20]).get(timeout=20) == {"written": 5, "unchanged": 15, "stale": 0, "rejected": 0}
    wait_until(lambda: sum(map(int, re.findall(r"of (\d+) messages", worker.logs()))) >= 3, "the batches are logged")
    assert stored() == bars[:20]
    query = "SELECT task_id, position, reason, id FROM dead_letters ORDER BY position"
    letters = database.execute(query).fetchall()
    assert [(one["position"], one["reason"], one["letter"]) for one in reasons] == [one[1:] for one in letters[:3]]
    assert [letter[:2] for letter in letters] == [("sent twice", 2 * n + 1) for n in range(len(bad))]
    for (_, begin), (_, _, reason, _) in zip(BAD_ROWS, letters, strict=True):
        assert reason.startswith(begin)
    assert worker.pool_pids == processes
    assert MARKER not in worker.logs()


@dataclass(frozen=True)
class Message:
    """A message as it is in the broker, and how the reason of its dead letter begins."""

    body: bytes
    reason: str = ""
    headers: dict[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    content_encoding: str = "utf-8"


class Intruder:
    """What a pickle can do: on being loaded it writes a file."""

    path = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def call(*args: Any, embed: Any = None, **kwargs: Any) -> bytes:
    """A task's body."""
    return json.dumps([args, kwargs, embed or {}]).encode()


ROW = {"note": MARKER}
JSON = "body: not the JSON of a Celery task"

LATE = "9999-12-31T23:59:59-12:00"
CALLBACK = {"task": TASK, "args": ["bars", []], "kwargs": {}, "options": {"queue": QUEUE}, "immutable": True}

SIGNED = "application/data"


def signed(body: bytes) -> bytes:
    """As Celery's serializer `auth` puts it: signer, signature, type, encoding and body."""
    parts = (b64encode(b"signer"), b64encode(b"signature" * 20), b"application/json", b"utf-8", body)
    return b64encode(b"\x00\x01".join(parts))


#: By task id; each is sent twice.
MESSAGES = {
    "unknown dataset": Message(call("candles", [ROW]), "dataset: 'candles' is unknown; use one of bars, ticks"),
    "dataset of no name": Message(call({}, [ROW]), "dataset: '{}' is unknown"),
    "rows of no list": Message(call("bars", MARKER), f"rows: expected a list of objects, got '{MARKER}'"),
    "no rows": Message(call("bars", defaults=ROW), "rows: missing; send store.write(dataset, rows, defaults=None)"),
    "no arguments": Message(call(), "dataset: missing; send store.write(dataset, rows, defaults=None)"),
    "too many": Message(call("bars", [ROW], {}, 4), "args: 4 given, store.write takes dataset, rows and defaults"),
    "unknown argument": Message(call("bars", [ROW], table="x"), "kwargs: 'table' is unknown"),
    "defaults of no object": Message(call("bars", [ROW], [MARKER]), "defaults: expected an object, got"),
    "wrong default": Message(call("bars", [ROW], {"ts": "never"}), "defaults: ts: 'never' is not a time"),
    "no JSON": Message(b'[["bars", CONFIDENTIAL', JSON),
    "no body": Message(b"", JSON),
    "no task's JSON": Message(b'{"rows": "CONFIDENTIAL"}', JSON),
    "no UTF-8": Message(b'[["bars", "CONFIDENTIAL\xff"], {}, {}]', "rows: not readable as JSON"),
    "too deep": Message(b'[["bars", [{"ts": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]], {}, {}]", JSON),
    "too large": Message(call("bars", [{**ROW, "x": "x" * 300_000}]), "body: 300,0"),
    "other content": Message(b"CONFIDENTIAL", "content_type: 'text/plain' is not", content_type="text/plain"),
    "signed": Message(signed(call("bars", [ROW])), "content_type: 'application/data' is not", content_type=SIGNED),
    "pickle": Message(b"", "content_type: 'application/x-python-seri", content_type="application/x-python-serialize"),
    "not compressed": Message(call("bars", [ROW]), "body: cannot be decoded", {"compression": "application/x-gzip"}),
    "strangely compressed": Message(call("bars", [ROW]), "body: cannot be decoded", {"compression": "x"}),
    "unknown task": Message(call(MARKER), "task: 'other.task' is unknown here", {"task": "other.task"}),
    "wrong eta": Message(call("bars", [ROW]), "eta: 'soon' is not a time", {"eta": "soon"}),
    "late eta": Message(call("bars", [ROW]), "eta: '9999-12-31T23:59:59-12:00' is not a time", {"eta": LATE}),
    "wrong expiry": Message(call("bars", [ROW]), "expires: 'soon' is not a time", {"expires": "soon"}),
    "callback": Message(call("candles", [ROW], embed={"callbacks": [CALLBACK]}), "dataset: 'candles' is unknown"),
    "group": Message(call("candles", [ROW]), "dataset: 'candles' is unknown", {"group": "g"}),
    "group, no arguments": Message(call(), "dataset: missing", {"group": "g"}),
    "group, no JSON": Message(b"{", JSON, {"group": "g"}),
    "task of no name": Message(call("bars", [ROW]), "task: '[1]' is not a string", {"task": [1]}),
    "[1]": Message(call("bars", [ROW]), "id: '[1]' is not a string", {"id": [1]}),
    "7": Message(call("bars", [ROW]), "id: '7' is not a string", {"id": 7}),
}
#: Known by their content.
WITHOUT_ID = {
    f"sha256:{sha256(message.body).hexdigest()}": message
    for message in (
        Message(call("bars", [ROW]), "id: 'None' is not a string", {"task": TASK}),
        Message(b'{"hello": "CONFIDENTIAL"}', "headers: the message is not a Celery task"),
        Message(b"CONFIDENTIAL", "body: cannot be decoded"),
    )
}


Publish = Callable[[Message, dict[str, Any]], None]


@pytest.fixture
def publish(broker_url: str) -> Publish:
    """Put a message into the queue as it stands, past all that Celery's clients would do to it."""

    def publish(message: Message, headers: dict[str, Any]) -> None:
        with kombu.Connection(broker_url) as connection:
            kombu.Producer(connection.default_channel, auto_declare=False).publish(
                message.body,
                routing_key=QUEUE,
                headers={**headers, **message.headers},
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                declare=[kombu.Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})],
            )

    return publish


def test_an_unusable_message_leaves_one_letter_and_the_worker_goes_on(
    start_worker: StartWorker,
    publish: Publish,
    send: Send,
    bars: list[Bar],
    stored: Callable[[], list[Bar]],
    database: Connection,
    tmp_path: Path,
) -> None:
    worker = start_worker(MDS_MAX_MESSAGE_BYTES="300000")
    processes = worker.pool_pids
    Intruder.path = str(tmp_path / "unpickled")
    loaded = replace(MESSAGES["pickle"], body=pickle.dumps([["bars", [Intruder()]], {}, {}]))
    expected = {**MESSAGES, "pickle": loaded, **WITHOUT_ID}
    results = []
    for n, (id_, message) in enumerate(expected.items()):
        for _ in range(2):
            publish(message, {} if id_ in WITHOUT_ID else {"task": TASK, "id": id_})
        results.append(send(bars[n : n + 1]))
    assert all(result.get(timeout=20)["written"] == 1 for result in results)
    assert stored() == bars[: len(expected)]

    query = "SELECT task_id, reason, body FROM dead_letters WHERE position = 0"
    wait_until(lambda: len(database.execute(query).fetchall()) == len(expected))
    letters = {id_: (reason, body) for id_, reason, body in database.execute(query)}
    assert letters.keys() == expected.keys()
    for id_, (reason, body) in letters.items():
        assert reason.startswith(expected[id_].reason), id_
        assert body == expected[id_].body[:300_000], id_
    assert worker.pool_pids == processes
    assert MARKER not in worker.logs()
    assert not Path(Intruder.path).exists()


@on_redis
def test_a_body_that_is_no_unicode_leaves_one_letter_and_the_worker_goes_on(
    broker_url: str, worker: Worker, send: Send, bars: list[Bar], database: Connection
) -> None:
    """On Redis, a producer that is not Python's kombu need not encode the body in base64."""
    properties = {"delivery_tag": "tag", "delivery_info": {"exchange": "", "routing_key": QUEUE}}
    headers = {"task": TASK, "id": "half a surrogate pair"}
    message = {"body": "\ud800", "headers": headers, "properties": properties, "content-type": "application/json"}
    with redis.Redis.from_url(broker_url) as client:
        client.lpush(QUEUE, json.dumps(message))
    assert send(bars[:1]).get(timeout=10)["written"] == 1
    wait_until(
        lambda: database.execute("SELECT FROM dead_letters WHERE task_id = 'half a surrogate pair'").rowcount == 1
    )
