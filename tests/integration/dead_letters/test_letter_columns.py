"""What a letter says of its message, and that old and new versions work beside each other while they are replaced."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import kombu
import psycopg
import pytest
from celery import Celery
from click.testing import CliRunner, Result
from flask_openapi3 import OpenAPI
from support.brokers import on_redis
from support.databases import Connection, database_at
from support.fixtures.store import QUEUE, TASK, Bar
from support.waiting import wait_until
from support.web import TOKEN
from support.workers import Worker

from market_data_store import config, dead_letters
from market_data_store.cli.dead_letters import command
from market_data_store.cli.terminal import moment
from market_data_store.datasets import DATASETS
from market_data_store.dead_letters import DeadLetter, Letter
from market_data_store.dead_letters.replay import messages, replay
from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres import schema
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import ARROW, BACKFILL_QUEUE, JSON, Counts
from market_data_store.service.dead_letters import create_letters
from market_data_store.service.guard import Guard
from market_data_store.status.database import DatabaseReader
from market_data_store.wire.arrow import frame_of, pack
from market_data_store.wire.rows import read_rows

UNKNOWN = json.dumps([["candles", []], {}, {}]).encode()
#: As version 0.4 stores a letter, and gives one that is refused again its new reason.
KEEP_0_4 = """
    INSERT INTO dead_letters
        (task_id, position, content_hash, dataset, reason, sqlstate, row, defaults, body, enqueued_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s::json, %s::json, %s,
            timestamptz '2000-01-01Z' + %s * interval '1 microsecond')
    ON CONFLICT (task_id, position, content_hash) DO NOTHING
"""
OLD = ["old", 0, 1, "bars", "close: 'x' is not a number", None, '{"close": "x"}', None, None, 0]
OLD_WHOLE = ["old whole", 0, 1, None, "dataset: 'candles' is unknown", None, None, None, UNKNOWN, 0]


def whole(task_id: str, body: bytes = UNKNOWN, **options: Any) -> DeadLetter:
    return DeadLetter(task_id=task_id, position=0, reason="r", pattern="p", enqueued_at=0, body=body, **options)


def letters(database: Connection) -> dict[str, Letter]:
    return {one.task_id: one for one in dead_letters.stream(database)}


@pytest.fixture
def channel(broker_url: str) -> Iterator[Any]:
    """A channel on the broker on which the queue is declared."""
    with kombu.Connection(broker_url) as connection:
        channel = connection.default_channel
        kombu.Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})(channel).declare()
        yield channel


# --- What is kept of a message's body --------------------------------------------------------------------------------


def test_a_letter_says_what_its_body_is(worker: Worker, channel: Any, database: Connection, bars: list[Bar]) -> None:
    long = "x" * 300
    sent: dict[str, tuple[bytes, dict[str, Any], dict[str, Any]]] = {
        "json": (UNKNOWN, {"content_type": JSON, "content_encoding": "utf-8"}, {}),
        "table": (pack("candles", b"{}", frame_of({"x": []})), {"content_type": ARROW}, {}),
        "other": (b"\x00\xff", {"content_type": "application/x-own", "content_encoding": "binary"}, {}),
        "compressed": (zlib.compress(UNKNOWN), {"content_type": JSON}, {"compression": "gzip"}),
        "badly compressed": (b"\x00 not so", {"content_type": JSON}, {"compression": "gzip"}),
        "strangely compressed": (UNKNOWN, {"content_type": JSON}, {"compression": f"é{long}"}),
        "another task": (UNKNOWN, {"content_type": JSON}, {"task": "other.task"}),
    }
    publisher = kombu.Producer(channel, auto_declare=False)
    for id_, (body, properties, headers) in sent.items():
        publisher.publish(body, routing_key=QUEUE, headers={"task": TASK, "id": id_, **headers}, **properties)
    wait_until(lambda: dead_letters.count(database) == len(sent))
    found = {id_: (one.content_type, one.content_encoding, one.compression) for id_, one in letters(database).items()}
    assert found == {
        "json": (JSON, "utf-8", None),
        "table": (ARROW, "binary", None),
        "other": ("application/x-own", "binary", None),
        "compressed": (JSON, "binary", "gzip"),
        "badly compressed": (JSON, "binary", "gzip"),
        "strangely compressed": (JSON, "binary", None),  # not a name: a replay could not send it
        "another task": (JSON, "binary", None),
    }
    for id_, one in letters(database).items():
        body = sent[id_][0]  # as it was sent: unpacked it may be a thousand times as large
        assert (one.body, one.body_bytes, one.body_sha256) == (body, len(body), sha256(body).hexdigest())
        assert (one.job, one.file, one.line) == (None, None, None)


def test_a_letter_of_a_row_has_no_body_to_speak_of(database: Connection) -> None:
    row = DeadLetter(task_id="t", position=0, reason="r", pattern="p", enqueued_at=0, row="{}", dataset="bars")
    dead_letters.keep(database, [row])
    (one,) = dead_letters.page(database)
    assert (one.body_bytes, one.body_sha256, one.content_type, one.content_encoding, one.compression) == (None,) * 5


@on_redis
def test_a_message_whose_properties_are_of_odd_types_leaves_a_letter(
    worker: Worker, channel: Any, database: Connection
) -> None:
    odd: list[tuple[Any, Any, Any]] = [(7, [1], None), (None, None, None), ("", "", "")]
    odd += [("\0\ud800", {}, ["x"]), (JSON, "utf-8", {"x": 1})]
    for number, (content_type, encoding, compression) in enumerate(odd):
        properties = {"delivery_tag": f"tag{number}", "delivery_info": {"exchange": "", "routing_key": QUEUE}}
        headers = {"task": TASK, "id": str(number), "compression": compression}
        message: dict[str, Any] = {"body": UNKNOWN.decode(), "headers": headers, "properties": properties}
        message |= {"content-type": content_type, "content-encoding": encoding}
        channel.client.lpush(QUEUE, json.dumps(message))
    wait_until(lambda: dead_letters.count(database) == 5)
    found = {number: (one.content_type, one.compression) for number, one in letters(database).items()}
    assert found == {
        "0": (None, None),
        "1": (None, None),
        "2": ("", None),
        "3": (None, None),
        "4": (JSON, None),
    }


# --- Sent again ------------------------------------------------------------------------------------------------------


def test_a_whole_message_is_sent_again_as_what_it_was(channel: Any, producer: Celery, database: Connection) -> None:
    magic = b"\xff\xff\xff\xff"
    dead_letters.keep(
        database,
        [
            whole("json", content_type=JSON, content_encoding="utf-8"),
            whole("looks like a table", magic, content_type=JSON, content_encoding="utf-8"),
            whole("other", b"x", content_type="application/x-own", content_encoding="binary"),
            whole("no encoding", b"x", content_type=ARROW),
            whole("compressed", b"x", content_type=JSON, content_encoding="utf-8", compression="application/x-own"),
            whole("empty type", content_type="", content_encoding=""),
        ],
    )
    database.execute(KEEP_0_4, OLD_WHOLE)
    database.execute(KEEP_0_4, ["old table", *OLD_WHOLE[1:-2], magic, 0])
    tasks = {sent.task_id: sent.ids for sent in messages(producer, database)}
    names = {one.id: name for name, one in letters(database).items()}
    found = {}

    def fetched() -> bool:
        # kombu does not know the compression, and so it leaves the body unchanged.
        message = channel.basic_get(BACKFILL_QUEUE, no_ack=True)
        if message is not None:
            (id_,) = tasks[message.headers["id"]]
            kept = message.headers.get("compression")
            body = message.body.encode() if isinstance(message.body, str) else message.body
            found[names[id_]] = (body, message.content_type, message.content_encoding, kept)
        return len(found) == len(tasks)

    wait_until(fetched)
    assert found == {
        "json": (UNKNOWN, JSON, "utf-8", None),
        "looks like a table": (magic, JSON, "utf-8", None),
        "other": (b"x", "application/x-own", "binary", None),
        "no encoding": (b"x", ARROW, "binary", None),
        "compressed": (b"x", JSON, "utf-8", "application/x-own"),
        "empty type": (UNKNOWN, JSON, "utf-8", None),
        "old whole": (UNKNOWN, JSON, "utf-8", None),
        "old table": (magic, ARROW, "binary", None),
    }


def test_a_table_is_sent_again_by_its_content_type(
    worker: Worker, channel: Any, producer: Celery, database: Connection, bars: list[Bar], stored: Any
) -> None:
    body = pack("bars", b"{}", frame_of({name: [bar[name] for bar in bars[:20]] for name in bars[0]}))
    kombu.Producer(channel, auto_declare=False).publish(
        body[:-300], routing_key=QUEUE, headers={"task": TASK, "id": "cut"}, content_type=ARROW
    )
    wait_until(lambda: dead_letters.count(database) == 1)
    database.execute("UPDATE dead_letters SET body = %s", [body])
    assert replay(producer, database) == 1
    wait_until(lambda: stored() == bars[:20])
    wait_until(lambda: dead_letters.count(database) == 0)


# --- From one version to the next ------------------------------------------------------------------------------------


def down_to_0002(url: str) -> None:
    while schema.downgrade(url)[1].current != "0002":
        pass


@pytest.fixture
def before(postgres_url: str) -> Iterator[str]:
    """URL of a database as version 0.4 has it."""
    name = "letters_before_0003"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        url = database_at(postgres_url, name)
        schema.upgrade(url)
        down_to_0002(url)
        yield url
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def old(before: str) -> Iterator[Connection]:
    with psycopg.connect(before, autocommit=True) as connection:
        yield connection


def test_letters_stay_through_up_down_and_up_again(before: str, old: Connection) -> None:
    listed = "SELECT id, task_id, reason, row::text, body FROM dead_letters ORDER BY id"
    old.execute(KEEP_0_4, OLD)
    old.execute(KEEP_0_4, OLD_WHOLE)
    first = old.execute(listed).fetchall()
    filenode = "SELECT pg_relation_filenode('dead_letters')"
    table = old.execute(filenode).fetchall()
    assert schema.upgrade(before)[1].up_to_date
    assert old.execute(filenode).fetchall() == table, "no letter is copied, however many there are"
    assert [one.pattern for one in dead_letters.page(old)] == [None, None]
    dead_letters.keep(old, [whole("new")])
    down_to_0002(before)
    assert old.execute(listed).fetchall()[:2] == first
    assert old.execute(listed).rowcount == 3
    assert schema.upgrade(before)[1].up_to_date
    assert [one.pattern for one in dead_letters.page(old)] == [None] * 3


def test_a_worker_of_the_version_before_stores_letters_beside_new_ones(database: Connection) -> None:
    dead_letters.keep(database, [whole("new")])
    for _ in range(2):
        database.execute(KEEP_0_4, OLD)
        database.execute(KEEP_0_4, OLD_WHOLE)
    assert {one.task_id: one.pattern for one in dead_letters.page(database)} == {
        "new": "p",
        "old": None,
        "old whole": None,
    }


def test_before_the_migrations_nothing_is_taken_or_lost(before: str, old: Connection, bars: list[Bar]) -> None:
    """The message waits until the migrations have run."""

    def message(*rows: Any) -> DecodedMessage:
        given = read_rows(DATASETS["bars"], json.dumps(rows).encode(), {})
        return DecodedMessage(task_id="t", dataset=DATASETS["bars"], rows=given, enqueued_at=0)

    def write(sent: DecodedMessage) -> list[Counts]:
        found = writer.write(decoded(DATASETS["bars"], [sent]), [sent])
        for why in found.waiting.values():
            raise why
        return found.counts

    writer = Writer(before)
    try:
        for refused in (
            lambda: write(message(bars[0])),
            lambda: write(message(7)),
            lambda: writer.keep([whole("t")]),
        ):
            with pytest.raises(DatabaseUnavailable, match="SQLSTATE 42703"):
                refused()
        assert old.execute("SELECT FROM bars_ohlcv").rowcount == 0
        schema.upgrade(before)
        assert write(message(bars[1], 7)) == [Counts(written=1, rejected=1)]
        assert [one.position for one in dead_letters.page(old)] == [1]
    finally:
        writer.close()


def test_before_the_migration_the_status_lacks_the_reasons_only(before: str, old: Connection) -> None:
    old.execute(KEEP_0_4, OLD)
    reader = DatabaseReader(before)
    try:
        first = reader.read()
        assert (first.dead_letters, first.reasons) == (1, None)
    finally:
        reader.close()


# --- Shown -----------------------------------------------------------------------------------------------------------

SHOWN = """
id                {id}
kept              {kept}
refused           {kept}
enqueued          2000-01-01 00:00:00Z
task              t
position          0
reason            r
pattern           p
content type      application/json
content encoding  utf-8
compression       gzip
body bytes        25
body sha256       {sha256}
body              [["candles", []], {{}}, {{}}]
"""


@pytest.fixture
def mds(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """`mds dead-letters` with these arguments, on this test's database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    config.settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(command, arguments, env={"COLUMNS": "160"})
    config.settings.cache_clear()


def test_the_command_shows_what_a_letter_says_of_its_message(mds: Callable[..., Result], database: Connection) -> None:
    dead_letters.keep(database, [whole("t", content_type=JSON, content_encoding="utf-8", compression="gzip")])
    database.execute(KEEP_0_4, OLD)
    kept, old = dead_letters.page(database)
    expected = {"id": kept.id, "kept": moment(kept.created_at), "sha256": sha256(UNKNOWN).hexdigest()}
    assert mds("show", str(kept.id)).output == SHOWN.lstrip().format(**expected)
    shown = mds("show", str(old.id)).output
    assert "pattern           not classified\n" in shown
    assert "body" not in shown

    database.execute("UPDATE dead_letters SET job = 7, file = 'bad.csv', line = 17 WHERE id = %s", [old.id])
    assert "job               7\nfile              bad.csv\nline              17\n" in mds("show", str(old.id)).output


def test_the_command_counts_letters_by_reason(mds: Callable[..., Result], database: Connection) -> None:
    assert mds("list", "--by-reason").output == "no dead letters\n"
    row: dict[str, Any] = {
        "reason": "close: 'SECRET' is not a number",
        "pattern": "close: … is not a number",
        "enqueued_at": 0,
    }
    dead_letters.keep(
        database, [DeadLetter(task_id="t", position=n, dataset="bars", row="{}", **row) for n in range(1_200)]
    )
    dead_letters.keep(database, [whole("t")])
    database.execute(KEEP_0_4, OLD)
    database.execute("UPDATE dead_letters SET created_at = '2026-11-25 12:00Z'")
    lines = [line.rstrip() for line in mds("list", "--by-reason").output.splitlines()]
    assert lines == [
        "count  dataset        newest                pattern",
        "1,200  bars           2026-11-25 12:00:00Z  close: … is not a number",
        "    1  bars           2026-11-25 12:00:00Z  not classified",
        "    1  whole message  2026-11-25 12:00:00Z  p",
    ]
    first, second, third = json.loads(mds("list", "--by-reason", "--json").output)
    newest = "2026-11-25T12:00:00+00:00"
    assert first == {"count": 1_200, "dataset": "bars", "pattern": row["pattern"], "newest": newest}
    assert (second["pattern"], third["dataset"]) == (None, None)
    assert len(json.loads(mds("list", "--by-reason", "--json", "--dataset", "bars").output)) == 2
    assert mds("list", "--by-reason", "--limit", "1").output.count("\n") == 2
    refused = mds("list", "--by-reason", "--after", "7")
    assert (refused.exit_code, "--after cannot be combined with --by and --by-reason" in refused.output) == (2, True)


def test_the_command_lists_letters_as_json(mds: Callable[..., Result], database: Connection) -> None:
    assert json.loads(mds("list", "--json").output) == []
    dead_letters.keep(database, [whole(f"\x1b {number}", content_type=JSON) for number in range(3)])
    output = mds("list", "--json", "--limit", "2").output
    assert "\x1b" not in output
    listed = json.loads(output)
    assert [one["task_id"] for one in listed] == ["\x1b 0", "\x1b 1"]
    assert (listed[0]["pattern"], listed[0]["body_bytes"], listed[0]["content_type"]) == ("p", len(UNKNOWN), JSON)
    assert datetime.fromisoformat(listed[0]["created_at"]).tzinfo is not None
    assert not {"row", "defaults", "body"} & listed[0].keys()
    (last,) = json.loads(mds("list", "--json", "--after", str(listed[1]["id"])).output)
    assert last["task_id"] == "\x1b 2"


def test_over_http_a_letter_has_the_same_fields(
    database_url: str, redis_url: str, database: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_letters.keep(database, [whole("t", content_type=JSON, content_encoding="utf-8")])
    monkeypatch.chdir(tmp_path)
    for name, value in {"DATABASE_URL": database_url, "BROKER_URL": redis_url, "ADMIN_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)
    config.settings.cache_clear()
    try:
        application = OpenAPI(__name__)
        application.register_api(create_letters(config.settings(), Guard(config.settings())))
        client = application.test_client()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        (listed,) = client.get("/dead-letters", headers=headers).get_json()["letters"]
        shown = client.get(f"/dead-letters/{listed['id']}", headers=headers).get_json()
    finally:
        config.settings.cache_clear()
    assert listed["pattern"] == "p"
    assert listed["body_sha256"] == sha256(UNKNOWN).hexdigest()
    assert [listed[name] for name in ("body_bytes", "content_type", "content_encoding")] == [25, JSON, "utf-8"]
    assert [listed[name] for name in ("compression", "job", "file", "line")] == [None] * 4
    assert shown.items() > listed.items()
    assert b64decode(shown["body"]) == UNKNOWN


def test_the_command_lists_many_letters_some_at_a_time(mds: Callable[..., Result], database: Connection) -> None:
    dead_letters.keep(database, [whole(str(number), content_type=JSON) for number in range(2_500)])
    ids = [letter.id for letter in dead_letters.page(database, limit=2_500)]

    def listed(*arguments: str) -> tuple[list[int], str]:
        header, *lines = mds("list", *arguments).output.splitlines()
        assert header.split() == ["id", "time", "dataset", "sqlstate", "reason"]
        last = lines.pop() if lines[-1].startswith("for more") else ""
        return [int(line.split()[0]) for line in lines], last

    assert listed("--limit", "100000") == (ids, "")
    for limit in (999, 1_000, 1_001, 2_000, 2_499):
        assert listed("--limit", str(limit)) == (ids[:limit], f"for more letters, add --after {ids[limit - 1]}")
    assert listed("--limit", "2500") == (ids, "")
