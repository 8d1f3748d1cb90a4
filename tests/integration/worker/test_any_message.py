"""Random messages against a real worker: each is stored or a letter, none is held, and no process ends.

The messages come from a grammar of everything that a message has: Celery's protocols 1 and 2, the envelope of a Redis
list, properties and types of AMQP, bodies of JSON and of Arrow. A round sends some hundred of them between good ones.
What fails is printed with its seed, then halved as long as a half fails too; what was found once is a case of
`test_found_messages` or `test_hostile_records`.
"""

from __future__ import annotations

import base64
import bz2
import datetime
import decimal
import json
import os
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import amqp
import kombu
import psutil
import pyarrow as pa
import pytest
import redis
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, StartWorker
from support.waiting import wait_until
from support.workers import Worker

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.protocol import ARROW

ROUNDS, MESSAGES = int(os.environ.get("FUZZ_ROUNDS", "4")), int(os.environ.get("FUZZ_MESSAGES", "500"))
SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)

NAMES = (
    *("lang", "task", "id", "root_id", "parent_id", "group", "group_index", "meth", "shadow", "eta", "expires"),
    *("retries", "timelimit", "argsrepr", "kwargsrepr", "origin", "replaced_task_nesting", "stamped_headers", "stamps"),
    *("ignore_result", "compression", "enqueued_at", "replays", "turns", "reached", "redelivered", "x-death"),
    *("x-delivery-count", "utc", "taskset", "chord", "callbacks", "errbacks", "chain", "args", "kwargs", "properties"),
)
PROPERTIES = ("reply_to", "correlation_id", "priority", "delivery_mode", "body_encoding", "delivery_tag")
CALLBACK = {"task": TASK, "args": ["bars", []], "kwargs": {}, "options": {"queue": QUEUE}, "immutable": True}
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, 1e308, -1e300, 2**31, 2**63 - 1, "", "x", "\x00", "NaN", "1m", "é" * 300),
    *("x\ny\x1b[2J", "2020-01-01T00:00:00", "9999-12-31T23:59:59-12:00", "2099-01-01T00:00:00+00:00", "gzip", "bzip2"),
    *([], {}, [[]], [None, "abc"], {"a": {"b": [1]}}, [1, 2, 3], {"task_id": "x", "ids": [1], "whole": False}),
    *(CALLBACK, [CALLBACK], [1], [{}], {"task": 5}, "i" * 5_000),
)
#: What only JSON can carry.
ODD_JSON: tuple[Any, ...] = (2**70, 10**400, float("nan"), float("inf"), "\ud800")
#: What only AMQP's tables can carry.
ODD_AMQP: tuple[Any, ...] = (datetime.datetime(2024, 1, 1), decimal.Decimal("1.5"), b"\xff\x00")


class Grammar:
    """Messages, the same for a seed."""

    def __init__(self, seed: int, rows: list[Bar], *, is_redis: bool) -> None:
        self._chance = random.Random(seed)  # noqa: S311  # no secret
        self._rows = rows
        self._odd = ODD + (ODD_JSON if is_redis else ODD_AMQP)

    def message(self, name: str) -> dict[str, Any]:
        """A message: its headers, properties, content and body."""
        chance = self._chance
        row = dict(chance.choice(self._rows))
        if chance.random() < 0.3:
            row[chance.choice([*row, "x"])] = self._value(json_only=True)
        args: list[Any] = ["bars", [row] * chance.randint(0, 3)]
        kwargs: dict[str, Any] = {"defaults": {"provider": "p"}} if chance.random() < 0.3 else {}
        embed = {each: self._value(json_only=True) for each in NAMES[-7:-3] if chance.random() < 0.15}
        headers: dict[str, Any] = {"task": TASK, "id": name}
        for _ in range(chance.choice((0, 0, 1, 1, 2, 5))):
            headers[chance.choice(NAMES)] = self._value()
        content = chance.choice(("application/json",) * 8 + (None, "", "text/plain", ARROW, "application/x-yaml"))
        encoding = chance.choice(("utf-8",) * 8 + (None, "", "binary", "utf-16", "x"))
        body = json.dumps([args, kwargs, embed], default=str).encode("utf-8", "surrogatepass")
        match chance.randrange(8):
            case 0:  # protocol 1
                names = [each for each in headers if each != "compression"]
                fields = {each: headers.pop(each) for each in names} | {"args": args, "kwargs": kwargs} | embed
                body = json.dumps(fields, default=str).encode("utf-8", "surrogatepass")
            case 1:
                body, content = self._table(row), ARROW
            case 2:
                body = self._damaged(body)
            case 3:
                pack, headers["compression"] = chance.choice(((zlib.compress, "gzip"), (bz2.compress, "bzip2")))
                body = pack(chance.choice((body, bytes(40 << 20))))
                body = self._damaged(body) if chance.random() < 0.3 else body
            case 4:
                body = chance.choice((b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 5_000, b"\x00" * 9))
        properties = {each: self._value() for each in PROPERTIES[:4] if chance.random() < 0.1}
        return {"headers": headers, "properties": properties, "type": content, "encoding": encoding, "body": body}

    def _value(self, *, json_only: bool = False) -> Any:
        value = self._chance.choice(ODD + ODD_JSON if json_only else self._odd)
        return self._chance.choice(([value], {"x": value})) if self._chance.random() < 0.1 else value

    def _table(self, row: Bar) -> bytes:
        table = pa.Table.from_pylist(
            [{name: str(value).encode(errors="replace").decode() for name, value in row.items()}]
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema.with_metadata({"dataset": "bars"})) as writer:
            writer.write_table(table)
        body = sink.getvalue().to_pybytes()
        return self._damaged(body) if self._chance.random() < 0.7 else body

    def _damaged(self, body: bytes) -> bytes:
        chance = self._chance
        start = chance.randrange(len(body) + 1)
        match chance.randrange(3):
            case 0:
                return body[:start]
            case 1:
                return body[:start] + chance.randbytes(chance.randint(1, 8)) + body[start:]
            case _:
                return body[:start] + body[start + chance.randint(1, 40) :]

    def envelope(self, message: dict[str, Any], name: str) -> str:
        """The message as an entry of a Redis list; a good one stays good."""
        chance = random.Random(1) if name.startswith("good") else self._chance  # noqa: S311  # no secret
        text = base64.b64encode(message["body"]).decode()
        properties = {
            "delivery_tag": name if chance.random() < 0.95 else chance.choice(("same", "")),
            "delivery_info": chance.choice(
                ({"exchange": "", "routing_key": QUEUE},) * 5 + ({}, {"exchange": "celery"})
            ),
            "body_encoding": "base64",
            **message["properties"],
        }
        entry = {
            "body": text if chance.random() < 0.95 else self._value(),
            "headers": message["headers"] if chance.random() < 0.97 else self._value(),
            "properties": properties,
            "content-type": message["type"],
            "content-encoding": message["encoding"],
        }
        return json.dumps(entry)


class Sender:
    """Puts messages into the queue of either broker, past all that kombu would do to them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.is_redis = url.startswith("redis")

    def send(self, grammar: Grammar, messages: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Send them in their order."""
        if self.is_redis:
            with redis.Redis.from_url(self._url) as client:
                client.lpush(QUEUE, *[grammar.envelope(message, name) for name, message in messages])
            return
        with kombu.Connection(self._url) as connection:
            channel = connection.default_channel
            kombu.Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})(channel).declare()
            for _, message in messages:
                channel._basic_publish(_amqp(message), exchange="", routing_key=QUEUE)


class _Raw(amqp.basic_message.Message):
    """A message with a header that py-amqp can neither make nor read: a time in the year 584554051223."""

    def _serialize_properties(self) -> bytes:
        table = b"\x04taskS" + struct.pack(">I", len(TASK)) + TASK.encode() + b"\x03etaT" + struct.pack(">Q", 2**64 - 1)
        return struct.pack(">H", 0x2000) + struct.pack(">I", len(table)) + table


def _amqp(message: dict[str, Any]) -> Any:
    properties = {name: value for name, value in message["properties"].items() if name in PROPERTIES[:2]}
    texts = {name: value[:255] for name, value in properties.items() if isinstance(value, str)}
    for name, key in (("type", "content_type"), ("encoding", "content_encoding")):
        if message[name] is not None:
            texts[key] = message[name]
    made = amqp.basic_message.Message(message["body"], application_headers=message["headers"], **texts)
    try:
        made._serialize_properties()
    except Exception:  # noqa: BLE001  # what py-amqp cannot send
        return _Raw(message["body"])
    return made


@pytest.fixture
def bounded(start_worker: StartWorker) -> Worker:
    return start_worker(MDS_MAX_MESSAGE_BYTES="1000000", MDS_VISIBILITY_TIMEOUT_S="60")


def _rounds() -> Iterator[int]:
    chance = random.Random(SEED)  # noqa: S311  # no secret
    return (chance.randrange(1 << 32) for _ in range(ROUNDS))


@pytest.mark.slow
def test_any_message_is_stored_or_kept_and_stops_nobody(
    bounded: Worker,
    broker_url: str,
    queue: QueueInspector,
    bars: list[Bar],
    database: Connection,
) -> None:
    processes, sender = bounded.pool_pids, Sender(broker_url)
    parent = psutil.Process(bounded.pid)
    at_start = parent.memory_info().rss
    good = iter(bars[1_000:])

    def passes(seed: int, first: int, end: int) -> bool:
        """Whether these messages of the seed do no harm."""
        grammar = Grammar(seed, bars[:1_000], is_redis=sender.is_redis)
        named = [(f"{seed}-{n}", grammar.message(f"{seed}-{n}")) for n in range(end)][first:]
        between = [next(good) for _ in range(10)]
        for n, row in enumerate(between):
            calls = {"headers": {"task": TASK, "id": f"good-{seed}-{first}-{n}"}, "properties": {}, "type": None}
            body = json.dumps([["bars", [row]], {}, {}]).encode()
            named.insert(
                n * len(named) // 10, (f"good-{seed}-{first}-{n}", {**calls, "encoding": "utf-8", "body": body})
            )
        sender.send(grammar, named)
        times = [row["ts"] for row in between]
        query = "SELECT count(*) FROM bars_ohlcv WHERE (ts AT TIME ZONE 'UTC')::text = ANY(%s)"
        try:
            wait_until(
                lambda: (
                    database.execute(query, [times]).fetchall() == [(10,)]
                    and queue.depth() == 0
                    and queue.reserved() in (0, None)
                ),
                timeout_s=60,
            )
        except AssertionError:
            return False
        return bounded.pool_pids == processes and parent.is_running()

    for seed in _rounds():
        first, end = 0, MESSAGES
        if passes(seed, first, end):
            continue
        while end - first > 1 and parent.is_running():
            middle = (first + end) // 2
            first, end = (first, middle) if not passes(seed, first, middle) else (middle, end)
        pytest.fail(f"FUZZ_SEED={SEED}: of seed {seed} message {first} to {end}: {bounded.logs()[-3_000:]}")
    assert parent.memory_info().rss < 1.5 * at_start + (32 << 20)
