"""Letters are counted by the pattern of their reason, which is stored beside it and holds nothing of a message."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import kombu
import pytest
from kombu.utils.uuid import uuid
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, Send, StartWorker
from support.waiting import wait_until

from market_data_store import dead_letters
from market_data_store.datasets import DATASETS
from market_data_store.dead_letters import DeadLetter
from market_data_store.dead_letters.replay import replay
from market_data_store.dead_letters.summary import NOT_CLASSIFIED, ReasonCount, summary
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import ARROW, Counts, Replayed
from market_data_store.wire.rows import read_rows

#: As version 0.4 stores a letter.
KEEP_0_4 = """
    INSERT INTO dead_letters
        (task_id, position, content_hash, dataset, reason, sqlstate, row, defaults, body, enqueued_at)
    VALUES (%s, %s, 0, 'bars', 'close: ''SECRET'' is not a number', NULL, '{"close": "SECRET"}', NULL, NULL, now())
    RETURNING id
"""
NOT_A_NUMBER = "close: … is not a number"


def patterns(database: Connection) -> set[str | None]:
    return {pattern for (pattern,) in database.execute("SELECT pattern FROM dead_letters")}


def letter(position: int, pattern: str, **options: Any) -> DeadLetter:
    return DeadLetter(task_id="t", position=position, reason="SECRET", pattern=pattern, enqueued_at=0, **options)


@pytest.fixture
def writer(database_url: str) -> Iterator[Writer]:
    writer = Writer(database_url)
    yield writer
    writer.close()


def write(writer: Writer, rows: list[Any], replays: Replayed | None = None) -> Counts:
    given = read_rows(DATASETS["bars"], json.dumps(rows).encode(), {})
    message = DecodedMessage(task_id=uuid(), dataset=DATASETS["bars"], rows=given, enqueued_at=0, replays=replays)
    return writer.write(decoded(DATASETS["bars"], [message]), [message]).counts[0]


def test_what_decoding_refuses_is_stored_with_its_pattern(
    writer: Writer, bars: list[Bar], database: Connection
) -> None:
    wrong = [{**bars[0], "close": "SECRET"}, {**bars[0], "symbol": 31337}, ["SECRET"], {**bars[0], "ts": None}]
    assert write(writer, wrong) == Counts(rejected=4)
    assert patterns(database) == {
        NOT_A_NUMBER,
        "symbol: … is not a string",
        "row: expected an object, got …",
        "ts: null (key column); give it in the row or in defaults",
    }


def test_of_what_postgres_refuses_only_the_sqlstate_is_in_the_pattern(
    writer: Writer, bars: list[Bar], database: Connection
) -> None:
    database.execute("ALTER TABLE bars_ohlcv ADD CONSTRAINT secret CHECK (close < 1000)")
    database.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF new.symbol = ''SECRET'' THEN RAISE ''% costs 31337'', new.symbol USING ERRCODE = ''22P02''; END IF;
        RETURN new; END'
    """)
    database.execute("CREATE TRIGGER refuse BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION refuse()")
    assert write(writer, [{**bars[0], "close": 31337}, {**bars[1], "symbol": "SECRET"}]) == Counts(rejected=2)
    assert patterns(database) == {
        "Postgres refuses the row (SQLSTATE 23514)",
        "Postgres refuses the row (SQLSTATE 22P02)",
    }
    assert {one.reason for one in dead_letters.page(database)} >= {"Postgres refuses the row: SECRET costs 31337"}


def test_a_letter_that_is_refused_again_gets_the_pattern_of_its_new_reason(
    writer: Writer, bars: list[Bar], database: Connection
) -> None:
    ids = [database.execute(KEEP_0_4, ["t", position]).fetchall()[0][0] for position in range(2)]
    assert patterns(database) == {None}
    wrong = {**bars[0], "close": "SECRET"}
    assert write(writer, [wrong, 7], Replayed("t", tuple(ids), False)) == Counts(rejected=2)
    assert [one.pattern for one in dead_letters.page(database)] == [NOT_A_NUMBER, "row: expected an object, got …"]
    assert write(writer, [{**bars[0], "close": None}, bars[1]], Replayed("t", tuple(ids), False)).rejected == 1
    (left,) = dead_letters.page(database)
    assert left.pattern == "close: null (required); give it in the row or in defaults"


def test_a_pattern_is_bounded_and_any_text(database: Connection) -> None:
    dead_letters.keep(database, [letter(0, "x\0\ud800" * 1_000)])
    (kept,) = dead_letters.page(database)
    assert kept.pattern is not None
    assert len(kept.pattern) == 300


# --- Counted ---------------------------------------------------------------------------------------------------------


def test_all_letters_are_counted_by_pattern_however_many_there_are(database: Connection) -> None:
    database.execute("""
        INSERT INTO dead_letters (task_id, position, content_hash, dataset, reason, pattern, created_at, enqueued_at)
        SELECT 'many', n, 0, CASE WHEN n % 3 = 0 THEN 'ticks' ELSE 'bars' END, 'SECRET ' || n,
               'close: … is not a number', timestamptz 'epoch' + n * interval '1 s', now()
        FROM generate_series(1, 30000) AS n
    """)
    database.execute(KEEP_0_4, ["old", 0])
    dead_letters.keep(database, [letter(0, "body: … bytes, at most … (MDS_MAX_MESSAGE_BYTES)", body=b"x")])
    counted = summary(database)
    assert [(each.dataset, each.reason, each.count) for each in counted] == [
        ("bars", NOT_A_NUMBER, 20_000),
        ("ticks", NOT_A_NUMBER, 10_000),
        ("bars", NOT_CLASSIFIED, 1),
        (None, "body: … bytes, at most … (MDS_MAX_MESSAGE_BYTES)", 1),
    ]
    assert [each.last_ts for each in counted[:2]] == [29_999, 30_000]
    assert summary(database, dataset="ticks") == [ReasonCount("ticks", NOT_A_NUMBER, 10_000, 30_000)]
    assert summary(database, limit=1) == counted[:1]


# --- Whole messages --------------------------------------------------------------------------------------------------


def body(*args: Any) -> bytes:
    return json.dumps([args, {}, {}]).encode()


GOOD = body("bars", [])
UNKNOWN = "dataset: … is unknown; use one of bars, ticks, quotes, options, fundamentals, news, signals"
NO_TABLE = "body: not a readable Arrow IPC stream (ArrowInvalid)"
#: Messages with what the header, the content type or the body has of it: and the pattern.
MESSAGES: dict[str, tuple[dict[str, Any], str]] = {
    "dataset": ({"body": body("SECRET", [])}, UNKNOWN),
    "compressed": ({"body": zlib.compress(body("SECRET", [])), "headers": {"compression": "gzip"}}, UNKNOWN),
    "json": ({"body": b'[["SECRET", 31337'}, "body: not the JSON of a Celery task ([args, kwargs, embed])"),
    "table": ({"body": b"\xff\xff\xff\xffSECRET", "content_type": ARROW}, NO_TABLE),
    "size": ({"body": body("bars", ["SECRET" * 100_000])}, "body: … bytes, at most … (MDS_MAX_MESSAGE_BYTES)"),
    "type": (
        {"body": b"SECRET", "content_type": "text/SECRET"},
        f"content_type: … is not application/json, nor {ARROW}",
    ),
    "task": ({"headers": {"task": "SECRET.31337"}}, "task: … is unknown here; the queue is for 'store.write'"),
    "task of no name": ({"headers": {"task": ["SECRET"]}}, "task: … is not a string; send the message with Celery"),
    "eta": ({"headers": {"eta": "SECRET"}}, "eta: … is not a time"),
    "expiry": ({"headers": {"expires": "31337-SECRET"}}, "expires: … is not a time"),
    "group": ({"body": body("SECRET", []), "headers": {"group": "SECRET"}}, UNKNOWN),
    "callback": ({"body": json.dumps([["SECRET", []], {}, {"callbacks": [{"task": TASK}]}]).encode()}, UNKNOWN),
}


def test_no_pattern_of_a_whole_message_holds_what_was_sent(
    start_worker: StartWorker, broker_url: str, send: Send, bars: list[Bar], database: Connection, producer: Any
) -> None:
    start_worker(MDS_MAX_MESSAGE_BYTES="300000")
    with kombu.Connection(broker_url) as connection:
        publisher = kombu.Producer(connection.default_channel, auto_declare=False)
        declared = kombu.Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})
        declared(connection.default_channel).declare()
        for id_, (message, _) in MESSAGES.items():
            headers = {"task": TASK, "id": id_, **message.get("headers", {})}
            given = {"content_type": "application/json", "content_encoding": "utf-8", "body": GOOD, **message}
            publisher.publish(routing_key=QUEUE, **{**given, "headers": headers})
        strange = {"SECRET": 31337}
        publisher.publish(
            body=b'{"SECRET": 31337}', routing_key=QUEUE, headers=strange, content_type="application/json"
        )
    expected = {id_: pattern for id_, (_, pattern) in MESSAGES.items()}
    query = "SELECT task_id, pattern FROM dead_letters"
    wait_until(lambda: database.execute(query).rowcount == len(expected) + 1, timeout_s=60)
    found: dict[str, str] = {
        ("no task" if id_.startswith("sha256:") else id_): pattern for id_, pattern in database.execute(query)
    }
    no_task = "headers: the message is not a Celery task; send it with send_task('store.write', ...)"
    assert found == {**expected, "no task": no_task}
    assert not any(secret in pattern for pattern in found.values() for secret in ("SECRET", "31337"))

    database.execute("UPDATE dead_letters SET pattern = NULL")
    assert replay(producer, database, ids=[one.id for one in dead_letters.page(database) if one.task_id == "dataset"])
    wait_until(lambda: patterns(database) == {None, UNKNOWN})
    assert send(bars[:1]).get(timeout=30)["written"] == 1
