"""Whatever a message holds, its letters are few and small, and keep all that a replay needs while there is room."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pytest
from celery import Celery
from support.databases import Connection
from support.waiting import wait_until
from support.workers import Worker
from support.writing import Row, bars, letter, message, select, written

from market_data_store import config, dead_letters
from market_data_store.datasets import DATASETS
from market_data_store.dead_letters import quota
from market_data_store.dead_letters.replay import replay
from market_data_store.postgres import portions, retention
from market_data_store.postgres.messages import DecodedMessage, Sent, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import ARROW, JSON, MAX_REASONS, Counts, Replayed, result_of
from market_data_store.wire.arrow import frame_of, pack, read_table

SANE = "ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close > 0)"
NOT_SANE = "ALTER TABLE bars_ohlcv DROP CONSTRAINT sane"


@pytest.fixture
def writer(database_url: str) -> Iterator[Writer]:
    writer = Writer(database_url)
    yield writer
    writer.close()


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, object], None]]:
    def set_to(name: str, value: object) -> None:
        monkeypatch.setenv(name, str(value))
        config.settings.cache_clear()

    yield set_to
    monkeypatch.undo()
    config.settings.cache_clear()


def some_bad(bad: int, **changes: Any) -> list[Row]:
    """Five good rows, and bad ones."""
    rows = bars(bad + 5)
    return [*({**row, **changes} for row in rows[:bad]), *rows[bad:]]


def body_of(sent: DecodedMessage) -> bytes:
    assert sent.sent is not None
    return sent.sent.body


def only_letter(database: Connection) -> dead_letters.Letter:
    (kept,) = dead_letters.stream(database)
    return kept


# --- One letter for many rows ----------------------------------------------------------------------------------------


def test_more_than_five_thousand_wrong_rows_have_one_letter(writer: Writer, database: Connection) -> None:
    sent = message(some_bad(5_001, close="x"), is_sent=True)
    found = writer.write(*decoded_of(sent))
    assert found.counts == [Counts(written=5, rejected=5_001)]
    kept = only_letter(database)
    assert (kept.body, kept.row, kept.dataset, kept.content_type) == (body_of(sent), None, "bars", JSON)
    assert kept.reason.startswith("rows: 5,001 or more of 5,006 are rejected, too many for a letter each; ")
    assert kept.reason.endswith("; row 0: close: 'x' is not a number")
    assert (kept.pattern or "").endswith("; close: … is not a number")
    reasons = result_of(found.counts[0], found.rejections[0])["reasons"]
    expected = [{"position": n, "reason": "close: 'x' is not a number", "letter": kept.id} for n in range(MAX_REASONS)]
    assert reasons == expected


def test_five_thousand_wrong_rows_have_a_letter_each(writer: Writer, database: Connection) -> None:
    written(writer, message(some_bad(5_000, close="x"), is_sent=True))
    assert {one.body for one in dead_letters.stream(database)} == {None}
    assert dead_letters.count(database) == 5_000


def test_of_several_messages_only_the_broken_one_is_kept_as_a_whole(writer: Writer, database: Connection) -> None:
    few = message(some_bad(2, close="y"), task_id="few", is_sent=True)
    many = message(some_bad(5_001, close="x"), task_id="many", is_sent=True)
    found = writer.write(*decoded_of(few, many))
    assert [counts.rejected for counts in found.counts] == [2, 5_001]
    assert [one.task_id for one in dead_letters.stream(database)].count("few") == 2
    assert dead_letters.count(database) == 3


@pytest.mark.parametrize("rows_at_once", [20_000, 300])
def test_more_than_five_thousand_rows_that_postgres_refuses_have_one_letter(
    writer: Writer, database: Connection, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(portions, "MOST_ROWS", rows_at_once)
    database.execute(SANE)
    rows = [{**row, "close": -1.0 if n % 5 else 1.5} for n, row in enumerate(bars(6_500))]
    sent = message(rows, is_sent=True)
    for again in range(2):
        found = writer.write(*decoded_of(sent))
        assert found.counts[0].rejected == 5_200
        assert found.counts[0].written == (0 if again else 1_300)
        kept = only_letter(database)
        assert kept.body == body_of(sent)
        assert {rejection.letter for rejection in found.rejections[0]} == {kept.id}


def test_letters_that_repeat_large_defaults_are_one(writer: Writer, database: Connection) -> None:
    sent = message([{"ts": "x"}] * 500, name="news", is_sent=True, provider="p", url="u" * 3_000)
    writer.write(*decoded_of(sent))
    assert only_letter(database).body == body_of(sent)


@pytest.mark.parametrize(
    "rows",
    [[1] * 1_000, [{"close": "x" * 100}] * 1_000, [{"close": "x" * 5_000}] * 900, ["é" * 500] * 1_000, [1] * 50_000],
    ids=["tiny", "usual", "large", "not ASCII", "many"],
)
def test_letters_take_at_most_four_times_their_message_and_a_kilobyte_each(
    writer: Writer, database: Connection, rows: list[Any]
) -> None:
    size = "SELECT pg_total_relation_size('dead_letters')"
    ((before,),) = select(database, size)
    sent = message(rows, task_id="i" * 255, is_sent=True, provider="p" * 100, symbol="s" * 100, interval="i" * 100)
    writer.write(*decoded_of(sent))
    ((after,),) = select(database, size)
    number = dead_letters.count(database)
    assert number in (1, len(rows))
    assert after - before <= 4 * len(body_of(sent)) + 1_024 * number + 64 * 1_024  # and what a new table's files have


def test_defaults_that_mean_nothing_are_in_no_letter(writer: Writer, database: Connection) -> None:
    written(writer, message([{"close": 1}], is_sent=True, provider="p", nothing="x" * 10_000))
    assert only_letter(database).defaults == '{"provider": "p"}'


def test_texts_that_a_table_repeats_are_in_one_letter(writer: Writer, database: Connection) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 900, pa.int8()), pa.array(["x" * 5_000]))
    frame = frame_of(pa.table({"symbol": texts, "close": pa.array([1.0] * 900)}))
    body = pack("bars", b"{}", frame)
    sent = DecodedMessage(
        task_id="t",
        dataset=DATASETS["bars"],
        rows=read_table(DATASETS["bars"], frame, {}),
        enqueued_at=0,
        sent=Sent(body[:20_000], ARROW, "binary"),
    )
    assert writer.write(*decoded_of(sent)).counts[0].rejected == 900
    assert dead_letters.count(database) == 1


# --- Replays of such letters -----------------------------------------------------------------------------------------


def replayed(sent: DecodedMessage, kept: dead_letters.Letter) -> DecodedMessage:
    return DecodedMessage(
        task_id="again",
        dataset=sent.dataset,
        rows=sent.rows,
        enqueued_at=sent.enqueued_at,
        replays=Replayed(kept.task_id, (kept.id,), True),
        sent=sent.sent,
    )


def test_a_letter_of_a_message_stays_while_too_many_rows_are_refused(writer: Writer, database: Connection) -> None:
    database.execute(SANE)
    sent = message([{**row, "close": -1.0 if n % 5 else 1.5} for n, row in enumerate(bars(6_500))], is_sent=True)
    writer.write(*decoded_of(sent))
    kept = only_letter(database)
    again = writer.write(*decoded_of(replayed(sent, kept)))
    assert again.counts == [Counts(unchanged=1_300, rejected=5_200)]
    left = only_letter(database)
    assert (left.id, left.task_id, left.body) == (kept.id, kept.task_id, kept.body)
    assert left.refused_at > kept.refused_at

    database.execute(NOT_SANE)
    assert writer.write(*decoded_of(replayed(sent, left))).counts == [Counts(written=5_200, unchanged=1_300)]
    assert dead_letters.count(database) == 0


def test_rows_that_have_become_few_get_letters_of_their_own(writer: Writer, database: Connection) -> None:
    database.execute(SANE)
    rows = [{**row, "close": -1.0 if n % 5 else 1.5} for n, row in enumerate(bars(6_500))]
    sent = message([*rows, {"close": 1}], is_sent=True)
    writer.write(*decoded_of(sent))
    kept = only_letter(database)
    database.execute(NOT_SANE)
    writer.write(*decoded_of(replayed(sent, kept)))
    left = only_letter(database)
    assert (left.task_id, left.row, left.position) == ("again", '{"close": 1}', 6_500)


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "gzip", "bzip2"])
def test_a_message_with_many_bad_rows_is_replayed_as_a_whole(
    worker: Worker, producer: Celery, send: Any, database: Connection, compression: str | None
) -> None:
    database.execute(SANE)
    rows = [{**row, "close": -1.0 if n % 5 else 1.5} for n, row in enumerate(bars(6_500))]
    result = send(rows, compression=compression).get(timeout=30)
    kept = only_letter(database)
    assert len(kept.body or b"") < (220_000 if compression else 2_200_000)
    assert (kept.compression or "").endswith({"gzip": "gzip", "bzip2": "bz2"}.get(compression or "", ""))
    assert (result["written"], result["rejected"], result["reasons"][0]["letter"]) == (1_300, 5_200, kept.id)
    database.execute(NOT_SANE)
    assert replay(producer, database) == 1
    wait_until(lambda: dead_letters.count(database) == 0)
    assert select(database, "SELECT count(*) FROM bars_ohlcv") == [(6_500,)]


# --- What a letter holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [-(2**63), -(2**62), 0, 2**62, 2**63 - 1])
def test_no_time_keeps_a_letter_out(database: Connection, moment: int) -> None:
    assert dead_letters.keep(database, [letter(enqueued_at=moment, row="1")]) != [None]
    assert 1970 <= only_letter(database).enqueued_at.year <= 9999


def test_of_a_longer_body_the_beginning_is_kept(
    database: Connection, producer: Celery, setting: Callable[[str, object], None]
) -> None:
    setting("MDS_MAX_MESSAGE_BYTES", 1_024)
    body = bytes(range(256)) * 10
    dead_letters.keep(database, [letter(body=body)])
    kept = only_letter(database)
    assert (kept.body, kept.body_bytes, kept.body_sha256) == (body[:1_024], 2_560, sha256(body).hexdigest())
    assert replay(producer, database) == 0
    assert dead_letters.count(database, only_partial=True) == 1


def test_a_letter_that_exists_does_not_keep_others_out(database: Connection) -> None:
    first = dead_letters.keep(database, [letter(row="1"), letter(row="2")])
    again = dead_letters.keep(database, [letter(row="2"), letter(row="3"), letter(row="3")])
    assert again[0] == first[1]
    assert again[1] == again[2] not in first
    assert dead_letters.count(database) == 3


def test_text_that_is_not_json_to_postgres_is_kept_as_a_text(database: Connection) -> None:
    dead_letters.keep(database, [letter(row="1"), letter(row="[" * 20_000 + "]" * 20_000)])
    assert sorted(len(one.row or "") for one in dead_letters.stream(database)) == [3, 40_002]


@pytest.mark.parametrize("task_id", ["x" * 255, "x" * 256, "é" * 200, "\0" * 200, "\ud800" * 60])
def test_a_task_id_takes_at_most_255_bytes(database: Connection, task_id: str) -> None:
    dead_letters.keep(database, [letter(task_id=task_id, row="1")])
    assert len(only_letter(database).task_id.encode()) <= 255
    assert len(dead_letters.reasons(database, [task_id])) == 1


def test_a_reason_of_any_length_is_kept_short(database: Connection) -> None:
    dead_letters.keep(database, [letter(row="1", reason="\ud800" * 10_000, pattern="é" * 10_000)])
    kept = only_letter(database)
    assert (len(kept.reason), len(kept.pattern or "")) == (500, 300)


# --- The quota -------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "_INTERVAL_S", 0.0)


@pytest.mark.usefixtures("measured_each_time")
def test_above_the_quota_only_reasons_are_kept(
    database: Connection, producer: Celery, setting: Callable[[str, object], None]
) -> None:
    setting("MDS_LETTERS_QUOTA_BYTES", 1_000_000)
    noise = [sha256(str(n).encode()).digest() * 6_250 for n in range(12)]  # 200 KB each
    for number, body in enumerate(noise):
        database.execute("ALTER TABLE dead_letters ALTER body SET STORAGE EXTERNAL")
        dead_letters.keep(database, [letter(task_id=str(number), body=body)])
    bodies = [one.body for one in dead_letters.stream(database)]
    assert [body is not None for body in bodies] == [True] * 4 + [False] * 8
    dead_letters.keep(database, [letter(task_id="row", row=json.dumps("x" * 300_000))])
    (kept,) = (one for one in dead_letters.stream(database) if one.task_id == "row")
    assert (kept.row, kept.body, kept.reason) == (None, None, "body: no JSON")
    assert dead_letters.count(database, only_partial=True) == 9

    dead_letters.purge(database, ids=None, dataset=None)
    dead_letters.keep(database, [letter(task_id="new", body=noise[0])])
    assert only_letter(database).body == noise[0]


def decoded_of(*messages: DecodedMessage) -> tuple[Any, tuple[DecodedMessage, ...]]:
    return decoded(messages[0].dataset, messages), messages


# --- Retention -------------------------------------------------------------------------------------------------------


def test_old_letters_are_deleted_on_request(database: Connection) -> None:
    dead_letters.keep(database, [letter(position=n, row="1") for n in range(4)])
    database.execute("UPDATE dead_letters SET created_at = now() - position * interval '10 days'")
    (counted,) = retention.apply(database, {"dead_letters": 15}, dry_run=True)
    assert (counted.dataset, counted.rows, dead_letters.count(database)) == ("dead_letters", 2, 4)
    (applied,) = retention.apply(database, {"dead_letters": 15}, limits={"dead_letters": counted.older_than})
    assert applied == counted
    assert {one.position for one in dead_letters.page(database)} == {0, 1}
