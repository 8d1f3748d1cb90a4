"""What the fuzzer, the hostile soak and a security review have found once: a case for each, under its own name."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from support.brokers import on_redis
from support.databases import Connection
from support.hostile.bodies import ARROW
from support.hostile.entries import entry
from support.hostile.grammar import Message, body, dumped
from support.hostile.sending import send
from support.waiting import wait_until
from support.workers import Worker

Row = dict[str, Any]

TASK = "store.write"
CALLBACK = {"task": TASK, "args": ["bars", []], "kwargs": {}, "options": {"queue": TASK}, "immutable": True}
CHUNKS = {"task": "celery.chunks", "kwargs": {"task": CALLBACK, "it": [[]] * 999, "n": 1}, "subtask_type": "chunks"}
DEEP = json.loads("[" * 600 + "]" * 600)


def row(symbol: str, **changes: Any) -> Row:
    good = {"provider": "p", "symbol": symbol, "interval": "1m", "ts": 1_700_000_000}
    return {**good, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, **changes}


def message(sent: bytes, **headers: Any) -> Message:
    return Message(0, "", {"task": TASK, "id": "found", **headers}, sent)


def with_callback(given: Row, **headers: Any) -> Message:
    return message(body([given], embed={"callbacks": [CALLBACK]}), **headers)


def of_protocol_1(given: Row, **fields: Any) -> Message:
    return Message(0, "", {}, dumped({"task": TASK, "args": ["bars", [given]], "kwargs": {}, **fields}))


def cut_off(given: Row) -> bytes:
    table = pa.Table.from_pylist([given]).replace_schema_metadata({"dataset": "bars"})
    whole, schema = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(whole, table.schema) as writer:
        writer.write_table(table)
    pa.ipc.new_stream(schema, table.schema).close()
    sent: bytes = whole.getvalue().to_pybytes()[: schema.getvalue().size - 8]
    return sent


#: Each is stored, with its row.
STORED: dict[str, Callable[[Row], Message]] = {
    "a chain of what are not tasks": lambda row: message(body([row], embed={"chain": [1, None, "x", {}]})),
    "a chain that is a text": lambda row: message(body([row], embed={"chain": "2099-01-01"})),
    "a chain of a chain": lambda row: message(body([row], embed={"chain": [[CALLBACK]]})),
    "a chord of anything": lambda row: message(body([row], embed={"chord": [1]}), group="g"),
    "callbacks that are a number": lambda row: message(body([row], embed={"callbacks": 5})),
    "callbacks within callbacks": lambda row: message(body([row], embed={"callbacks": DEEP})),
    "callbacks that are a text, of which each letter would be a task": lambda row: message(
        body([row], embed={"callbacks": "i" * 5_000})
    ),
    "callbacks that are an object": lambda row: message(body([row], embed={"callbacks": {"task_id": "x", "ids": [1]}})),
    "chunks that would be many messages": lambda row: message(body([row], embed={"callbacks": [CHUNKS]})),
    "a body that is said to be UTF-16": lambda row: Message(
        0, "", {"task": TASK, "id": "found"}, body([row]), content_encoding="utf-16"
    ),
    "errbacks that are not tasks": lambda row: message(body([row], embed={"errbacks": [{"task": 5}]})),
    "a time limit in words, with a callback": lambda row: with_callback(row, timelimit=["1m", "1m"]),
    "a time limit that is not a list": lambda row: with_callback(row, timelimit="abc"),
    "a callback and a time of enqueueing of any type": lambda row: with_callback(row, enqueued_at="abc"),
    "a callback and a time of enqueueing beyond all": lambda row: with_callback(row, enqueued_at=1e300),
    "three of one id, first": lambda row: message(body([row]), id="hourly-load"),
    "three of one id, with a callback": lambda row: with_callback(row, id="hourly-load"),
    "three of one id, last": lambda row: message(body([row]), id="hourly-load"),
    "protocol 1 without an id": lambda row: of_protocol_1(row),
    "protocol 1 with an empty id": lambda row: of_protocol_1(row, id=""),
    "protocol 1 with a number for an id": lambda row: of_protocol_1(row, id=5),
    "protocol 1 with letters beyond ASCII and no id": lambda row: Message(
        0, "", {}, '{"task": "store.write", "args": ["bars", [%s]], "\u00e9": "\u00e9"}'.encode() % dumped(row)
    ),
    "protocol 1, compressed": lambda row: Message(
        0, "", {"compression": "gzip"}, zlib.compress(of_protocol_1(row, id="x").body)
    ),
    "protocol 1 with half a surrogate pair beside the rows": lambda row: of_protocol_1(row, id="x", note="\ud800"),
    "a stamp of any type": lambda row: message(body([row]), stamped_headers=5, stamps=[1]),
    "a header that says how often it was delivered": lambda row: message(body([row]), turns=2**31 - 1, reached="x"),
    "an eta that is far away": lambda row: message(body([row]), eta="2099-01-01T00:00:00"),
}
#: Each becomes a letter whose reason begins so.
KEPT: dict[str, tuple[Callable[[Row], Message], str]] = {
    "protocol 1 with half a surrogate pair in a row": (
        lambda row: of_protocol_1({**row, "symbol": "\ud800"}, id="x"),
        "symbol: ",
    ),
    "protocol 1 with a time that is not one, and no id": (
        lambda row: of_protocol_1(row, expires=[1, 2, 3]),
        "expires: '[1, 2, 3]' is not a time",
    ),
    "a time in the year 584554051223": (
        lambda row: Message(0, "", {}, body([row]), is_readable=False),
        "headers: the message is not a Celery task",
    ),
    "lists in lists": (lambda _: message(b"[" * 100_000), "body: not the JSON"),
    "a bomb": (
        lambda _: message(zlib.compress(bytes(64 << 20)), compression="gzip"),
        "body: more than 16,777,216 bytes when",
    ),
    "a text that is not a time": (lambda row: message(body([row]), expires="1m"), "expires: '1m' is not a time"),
    "a callback a hundred times and once more": (
        lambda row: message(body([row], embed={"callbacks": [CALLBACK] * 101})),
        "body: more than 100 tasks follow",
    ),
    "a table that was cut off after its schema": (
        lambda row: Message(0, "", {"task": TASK, "id": "found"}, cut_off(row), content_type=ARROW),
        "body: the Arrow IPC stream has no end",
    ),
    "a retry count beyond 31 bits": (lambda row: message(body([row]), retries=2**31), "retries: "),
}
#: On Redis, a body that is not a text.
BODIES: list[Any] = [{"a": 1}, 400_000_000, 1.5, [[]], True, None]


def test_what_was_found_once_is_stored(worker: Worker, broker_url: str, database: Connection) -> None:
    processes = worker.pool_pids
    send(broker_url, [make(row(name)) for name, make in STORED.items()])
    stored = "SELECT symbol FROM bars_ohlcv"
    wait_until(
        lambda: {name for (name,) in database.execute(stored)} == STORED.keys(),
        lambda: f"{STORED.keys() - {name for (name,) in database.execute(stored)}}: {worker.logs()}",
        timeout_s=60,
    )
    assert worker.pool_pids == processes
    assert database.execute("SELECT reason FROM dead_letters").fetchall() == []


def test_what_was_found_once_becomes_a_letter(worker: Worker, broker_url: str, database: Connection) -> None:
    processes = worker.pool_pids
    send(broker_url, [make(row(name)) for name, (make, _) in KEPT.items()])
    wait_until(lambda: letters(database) >= len(KEPT), worker.logs, timeout_s=60)
    found = [reason for (reason,) in database.execute("SELECT reason FROM dead_letters")]
    for name, (_, begin) in KEPT.items():
        assert sum(reason.startswith(begin) for reason in found) == 1, name
    assert database.execute("SELECT symbol FROM bars_ohlcv").fetchall() == []
    assert worker.pool_pids == processes


@on_redis
def test_a_body_that_is_not_a_text_becomes_a_letter(worker: Worker, broker_url: str, database: Connection) -> None:
    processes = worker.pool_pids
    made = [message(b"", id=f"body-{n}") for n in range(len(BODIES))]
    for one, sent in zip(made, BODIES, strict=True):
        one.entry = entry(one, body=sent)
    send(broker_url, made)
    wait_until(lambda: letters(database) == len(BODIES), worker.logs, timeout_s=60)
    assert all(reason.startswith("body: ") for (reason,) in database.execute("SELECT reason FROM dead_letters"))
    assert worker.pool_pids == processes


def letters(database: Connection) -> int:
    return database.execute("SELECT FROM dead_letters").rowcount
