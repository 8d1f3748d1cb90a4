"""The writer on a real Postgres: a row that cannot be stored is a dead letter, and the others are written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from support.databases import Connection
from support.writing import AT, Row, bar, bars, closes, letter, message, noise, select, write

from market_data_store.datasets import DATASETS
from market_data_store.errors import LettersUnavailable
from market_data_store.postgres.messages import DecodedMessage
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts
from market_data_store.wire.rows import read_rows

SANE = "ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close < 1000)"
LETTERS = """
    SELECT task_id, position, dataset, reason, sqlstate, row::jsonb, defaults::jsonb, body, enqueued_at
    FROM dead_letters ORDER BY task_id, position
"""


def test_rejected_rows_are_dead_letters_with_all_that_a_replay_needs(writer: Writer, database: Connection) -> None:
    wrong = bar(close="NaN")
    del wrong["provider"]
    assert write(writer, message([bar(), wrong, None], task_id="t", at=1, provider="ibkr")) == [
        Counts(written=1, rejected=2)
    ]
    assert select(database, LETTERS) == [
        (
            "t",
            1,
            "bars",
            "close: 'NaN' is not a finite number",
            None,
            wrong,
            {"provider": "ibkr"},
            None,
            AT.replace(second=1),
        ),
        (
            "t",
            2,
            "bars",
            "row: expected an object, got None",
            None,
            None,
            {"provider": "ibkr"},
            None,
            AT.replace(second=1),
        ),
    ]


@pytest.mark.parametrize(
    ("trouble", "remedy"),
    [
        pytest.param("RENAME TO gone", "ALTER TABLE gone RENAME TO dead_letters", id="gone"),
        pytest.param("RENAME reason TO why", "ALTER TABLE dead_letters RENAME why TO reason", id="altered"),
        pytest.param(
            "ADD CONSTRAINT none CHECK (false)", "ALTER TABLE dead_letters DROP CONSTRAINT none", id="a constraint"
        ),
    ],
)
@pytest.mark.parametrize("close", [5_000.0, "x"], ids=["refused by Postgres", "rejected before"])
def test_good_rows_are_committed_while_no_letter_can_be_kept(
    writer: Writer, database: Connection, trouble: str, remedy: str, close: object
) -> None:
    database.execute(SANE)
    database.execute(f"ALTER TABLE dead_letters {trouble}")
    sent = message([bar(), bar(symbol="IBM", close=close)])
    for _ in range(2):
        with pytest.raises(LettersUnavailable, match=r"dead_letters: .*SQLSTATE"):
            write(writer, sent)
        assert closes(database) == [1.5]
    database.execute(remedy)
    assert write(writer, sent) == [Counts(unchanged=1, rejected=1)]
    assert select(database, "SELECT row->>'symbol' FROM dead_letters") == [("IBM",)]


def test_a_message_of_nothing_but_rejects_leaves_its_letters(writer: Writer, database: Connection) -> None:
    assert write(writer, message([1, 2, 3])) == [Counts(rejected=3)]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(3,)]


def test_a_redelivery_leaves_no_second_letter(writer: Writer, database: Connection) -> None:
    sent = message([bar(), 7, bar(symbol="")], task_id="t")
    assert write(writer, sent) == [Counts(written=1, rejected=2)]
    before = select(database, "SELECT ctid::text, xmin::text FROM dead_letters")
    assert write(writer, sent) == [Counts(unchanged=1, rejected=2)]
    assert write(writer, sent, sent) == [Counts(unchanged=1, rejected=2)] * 2
    assert select(database, "SELECT ctid::text, xmin::text FROM dead_letters") == before


def test_whatever_a_rejected_row_holds_its_letter_is_kept(writer: Writer, database: Connection) -> None:
    values: list[Any] = ["A\0B", "\ud800", "x" * 1_000_000, {"a": ["\0"]}, 10**400, "'; DROP TABLE news"]
    wrong = [bar(symbol=7, close=value) for value in values]
    assert write(writer, message([*wrong, bar()])) == [Counts(written=1, rejected=len(values))]
    kept = select(database, "SELECT row::text FROM dead_letters ORDER BY position")
    assert [json.loads(text) for (text,) in kept] == wrong


def test_a_rejected_row_that_is_no_utf_8_is_kept(writer: Writer, database: Connection) -> None:
    text = json.dumps([bar(), bar(symbol="@")]).encode().replace(b"@", b"\xff")
    given = read_rows(DATASETS["bars"], text, {})
    sent = DecodedMessage(task_id="t", dataset=DATASETS["bars"], rows=given, enqueued_at=0)
    assert write(writer, sent) == [Counts(written=1, rejected=1)]
    assert select(database, "SELECT row->>'symbol' FROM dead_letters") == [("�",)]


@pytest.mark.parametrize(
    "note",
    [
        "\ud800",
        "A\0B",
        2**200,
        pytest.param(math.nan),
        pytest.param(AT),
    ],
)
def test_whatever_defaults_hold_the_letter_is_kept_and_the_others_are_written(
    writer: Writer, database: Connection, note: Any
) -> None:
    assert write(writer, replace(message([bar(), 7]), defaults={"note": note})) == [Counts(written=1, rejected=1)]
    assert select(database, "SELECT count(*) FROM dead_letters WHERE defaults IS NOT NULL") == [(1,)]


@pytest.mark.parametrize("refused", [(0,), (7,), (19,), (3, 4, 12), tuple(range(20))])
def test_a_row_that_only_postgres_refuses_is_a_dead_letter_and_the_others_are_written(
    writer: Writer, database: Connection, refused: tuple[int, ...]
) -> None:
    write(writer, message([bar(symbol="STORED")]))
    database.execute(SANE)
    rows: list[Any] = [{**row, "close": 5_000.0} if i in refused else row for i, row in enumerate(bars(20))]
    first, second = message([*rows[:10], "no row"], task_id="a"), message(rows[10:], task_id="b")
    lost = [sum(i < 10 for i in refused), sum(i >= 10 for i in refused)]
    assert write(writer, first, second) == [
        Counts(written=10 - lost[0], rejected=1 + lost[0]),
        Counts(written=10 - lost[1], rejected=lost[1]),
    ]
    assert closes(database) == [1.5] * (21 - len(refused))
    letters = select(database, LETTERS)
    reason = 'Postgres refuses the row: new row for relation "bars_ohlcv" violates check constraint "sane"'
    assert [(task_id, position, why, code, row) for task_id, position, _, why, code, row, *_ in letters] == sorted(
        [("a", 10, "row: expected an object, got 'no row'", None, "no row")]
        + [("ab"[i // 10], i % 10, reason, "23514", rows[i]) for i in refused]
    )
    assert {letter[2] for letter in letters} == {"bars"}


TRIGGER = """
    CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF NEW.close > 1000 THEN RAISE SQLSTATE ''{}''; END IF; RETURN NEW; END';
    CREATE {} TRIGGER picky {} INSERT ON bars_ohlcv {} FOR EACH ROW EXECUTE FUNCTION picky()
"""


@pytest.mark.parametrize(
    ("sqlstate", "rule"),
    [
        pytest.param("22003", TRIGGER.format("22003", "", "BEFORE", ""), id="a trigger, out of range"),
        pytest.param("22P02", TRIGGER.format("22P02", "", "AFTER", ""), id="a trigger, after all rows are in"),
        pytest.param(
            "23000",
            TRIGGER.format("23000", "CONSTRAINT", "AFTER", "DEFERRABLE INITIALLY DEFERRED"),
            id="a constraint that is looked at when the transaction is committed",
        ),
        pytest.param("23P01", "ALTER TABLE bars_ohlcv ADD EXCLUDE (high WITH =) WHERE (close > 1000)", id="exclusion"),
        pytest.param("23505", "CREATE UNIQUE INDEX ON bars_ohlcv (high) WHERE (close > 1000)", id="unique"),
        pytest.param(
            "23514",
            "CREATE DOMAIN sane AS float8 CHECK (VALUE < 1000); ALTER TABLE bars_ohlcv ALTER close TYPE sane",
            id="a type that is looked at while rows are copied",
        ),
        pytest.param(
            "22001",
            "ALTER TABLE bars_ohlcv ALTER symbol TYPE varchar(4)",
            id="a length that is looked at while rows are copied",
        ),
    ],
)
def test_whatever_rule_a_row_breaks_it_alone_is_a_dead_letter(
    writer: Writer, database: Connection, sqlstate: str, rule: str
) -> None:
    database.execute(rule)
    write(writer, message([bar(interval="before", close=5_000.0)])) if sqlstate in ("23505", "23P01") else None
    rows = bars(40)
    for n in (0, 17, 39):
        rows[n] |= {"close": 5_000.0, "symbol": "TOO LONG"}
    before = len(closes(database))
    assert write(writer, message(rows, task_id="t")) == [Counts(written=37, rejected=3)]
    assert len(closes(database)) == before + 37
    kept = select(database, "SELECT position, sqlstate, row->>'symbol' FROM dead_letters ORDER BY 1")
    assert kept == [(n, sqlstate, "TOO LONG") for n in (0, 17, 39)]


def test_a_redelivery_of_a_row_that_postgres_refuses_leaves_no_second_letter(
    writer: Writer, database: Connection
) -> None:
    database.execute(SANE)
    sent = message([bar(), bar(symbol="IBM", close=5_000)])
    assert write(writer, sent) == [Counts(written=1, rejected=1)]
    assert write(writer, sent) == [Counts(unchanged=1, rejected=1)]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(1,)]


def test_a_key_that_the_index_cannot_hold_is_a_dead_letter_with_its_sqlstate(
    writer: Writer, database: Connection
) -> None:
    database.execute("CREATE INDEX ON news (title)")
    news = {"provider": "p", "ts": AT.isoformat()}
    long = noise(20_000, 1, 0x4E00, 0x9FFF)
    rows = [{**news, "title": "short"}, {**news, "title": long}]
    assert write(writer, message(rows, name="news"), name="news") == [Counts(written=1, rejected=1)]
    assert select(database, "SELECT sqlstate, row->>'title' FROM dead_letters") == [("54000", long)]
    assert select(database, "SELECT title FROM news") == [("short",)]


def test_where_postgres_refuses_the_newest_row_of_a_key_the_newest_that_it_takes_is_written(
    writer: Writer, database: Connection
) -> None:
    database.execute(SANE)
    oldest = message([bar(symbol="IBM"), bar(close=1.0), bar(close=2.0)], at=0, task_id="a")
    middle = message([bar(close=2.0), bar(close=5_000.0)], at=1, task_id="b")
    newest = message([bar(close=6_000.0), bar(symbol="IBM")], at=2, task_id="c")
    assert write(writer, newest, oldest, middle) == [
        Counts(rejected=1, written=1),
        Counts(unchanged=2, superseded=1),
        Counts(written=1, rejected=1),
    ]
    assert select(database, "SELECT symbol, close, enqueued_at FROM bars_ohlcv ORDER BY symbol") == [
        ("AAPL", 2.0, AT.replace(second=1)),
        ("IBM", 1.5, AT.replace(second=2)),
    ]
    assert select(database, "SELECT task_id, position FROM dead_letters ORDER BY 1, 2") == [("b", 1), ("c", 0)]


def test_where_postgres_refuses_every_row_of_a_key_each_is_a_dead_letter(writer: Writer, database: Connection) -> None:
    database.execute(SANE)
    write(writer, message([bar(close=1.0)]))
    rows = [bar(close=5_000.0 + i) for i in range(3)]
    assert write(writer, message(rows, at=1), message(rows, at=2)) == [Counts(rejected=3)] * 2
    assert closes(database) == [1.0]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(6,)]


def test_the_writer_goes_on_after_rows_were_refused(writer: Writer, database: Connection) -> None:
    database.execute(SANE)
    write(writer, message([bar(close=5_000.0)]))
    assert write(writer, message([bar(symbol="IBM")])) == [Counts(written=1)]
    assert closes(database) == [1.5]


def test_a_message_that_is_unusable_as_a_whole_is_kept_once_with_its_body(writer: Writer, database: Connection) -> None:
    body = bytes(range(256))
    for _ in range(2):
        writer.keep([letter(body=body), letter(task_id="u", reason="args: 'A\0B'")])
    assert [(row[0], row[3], row[7]) for row in select(database, LETTERS)] == [
        ("t", "body: no JSON", body),
        ("u", "args: 'A\\0B'", None),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"task_id": "a\0b"}, id="NUL in the task's id"),
        pytest.param({"task_id": "\ud800"}, id="half a surrogate pair in the task's id"),
        pytest.param({"task_id": noise(9_000, 1)}, id="a long id"),
        pytest.param({"enqueued_at": -(2**62)}, id="a moment before Postgres's time"),
        pytest.param({"reason": "\ud800"}, id="half a surrogate pair in the reason"),
    ],
)
def test_a_foreign_message_of_any_headers_can_be_kept(writer: Writer, database: Connection, wrong: Row) -> None:
    writer.keep([letter(**wrong)])
    assert select(database, "SELECT count(*) FROM dead_letters") == [(1,)]
