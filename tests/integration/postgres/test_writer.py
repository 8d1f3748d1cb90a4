"""The writer on a real Postgres: what is stored, what is counted, and what happens when Postgres is not well."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market_data_store.datasets import DATASETS, MAX_KEY_LENGTH
from market_data_store.dead_letters import DeadLetter
from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres import schema
from market_data_store.postgres.batch import DecodedMessage
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts
from market_data_store.wire.rows import decode_rows
from market_data_store.wire.text import row_text

Row = dict[str, Any]
Connection = psycopg.Connection[tuple[Any, ...]]

TIMEOUT_S = 10.0
AT = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True, options="-ctimezone=UTC") as connection:
        yield connection


@pytest.fixture
def writer(database_url: str) -> Iterator[Writer]:
    writer = Writer(database_url)
    yield writer
    writer.close()


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database in which nothing was migrated."""
    name = f"c_empty_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def bar(**changes: Any) -> Row:
    return {
        "provider": "ibkr",
        "symbol": "AAPL",
        "interval": "1m",
        "ts": AT.isoformat(),
        "open": 1.0,
        "high": 2.0,
        "low": 0.5,
        "close": 1.5,
        **changes,
    }


def bars(count: int, **changes: Any) -> list[Row]:
    return [bar(ts=AT.timestamp() + 60 * i, **changes) for i in range(count)]


def message(
    rows: list[Any], *, name: str = "bars", at: float = 0.0, task_id: str = "", **defaults: Any
) -> DecodedMessage:
    """A message as the task makes it; `at` is when it was enqueued, in seconds after `AT`."""
    text = json.dumps(rows).encode()
    enqueued_at = round(((AT - EPOCH).total_seconds() + at) * 1e6)
    return DecodedMessage(
        task_id=task_id or uuid4().hex,
        decoded=decode_rows(DATASETS[name], text, defaults, enqueued_at),
        enqueued_at=enqueued_at,
        row_text=lambda position: row_text(rows[position]),
        defaults=defaults,
    )


def write(writer: Writer, *messages: DecodedMessage, name: str = "bars") -> list[Counts]:
    counts = writer.write(DATASETS[name], messages)
    for got, sent in zip(counts, messages, strict=True):
        assert got.written + got.unchanged + got.stale + got.rejected == sent.decoded.sent
    return counts


def select(database: Connection, query: str) -> list[tuple[Any, ...]]:
    return database.execute(query).fetchall()


def closes(database: Connection) -> list[float]:
    return [
        close for (close,) in select(database, "SELECT close FROM bars_ohlcv ORDER BY provider, symbol, interval, ts")
    ]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


# --- Counts and what is stored ---------------------------------------------------------------------------------------


def test_rows_are_stored_and_counted_by_message(writer: Writer, database: Connection) -> None:
    first = message([bar(), bar(symbol="MSFT")])
    second = message([bar(symbol="IBM"), bar(symbol="IBM", close="no number"), 7])
    assert write(writer, first, second) == [Counts(written=2), Counts(written=1, rejected=2)]
    assert [symbol for (symbol,) in select(database, "SELECT symbol FROM bars_ohlcv ORDER BY symbol")] == [
        "AAPL",
        "IBM",
        "MSFT",
    ]


def test_what_is_stored_is_what_was_sent(writer: Writer, database: Connection) -> None:
    row = bar(symbol="brk.b", open="190.0100", volume=None, trade_count=2**63 - 1, vwap=0.1 + 0.2)
    assert write(writer, message([row], at=1.25)) == [Counts(written=1)]
    assert select(database, "SELECT * FROM bars_ohlcv") == [
        (
            "ibkr",
            "BRK.B",
            "1m",
            AT,
            190.01,
            2.0,
            0.5,
            1.5,
            None,
            0.1 + 0.2,
            2**63 - 1,
            AT.replace(second=1, microsecond=250_000),
        )
    ]


def test_nothing_to_write_is_nothing_written(writer: Writer, database: Connection) -> None:
    assert write(writer) == []
    assert write(writer, message([]), message([])) == [Counts(), Counts()]
    assert closes(database) == []


def test_a_replay_changes_nothing_physically(writer: Writer, database: Connection) -> None:
    tuples = "SELECT ctid::text, xmin::text, enqueued_at FROM bars_ohlcv ORDER BY ts"
    write(writer, message(bars(50), task_id="t", at=0))
    before = select(database, tuples)
    assert write(writer, message(bars(50), task_id="t", at=0)) == [Counts(unchanged=50)]
    assert write(writer, message(bars(50), at=60), message(bars(50), at=-60)) == [Counts(unchanged=50)] * 2
    assert select(database, tuples) == before
    writer.close()
    statistics = "SELECT {} FROM pg_stat_user_tables WHERE relname = 'bars_ohlcv'"
    # The first replay was tried as new rows: those are dead.
    wait_until(lambda: select(database, statistics.format("n_tup_ins")) == [(100,)])
    assert select(database, statistics.format("n_tup_upd, n_tup_del, n_live_tup, n_dead_tup")) == [(0, 0, 50, 50)]


def test_replays_are_hardly_ever_tried_as_new_rows(writer: Writer, database: Connection) -> None:
    write(writer, message(bars(50)))
    for _ in range(100):
        assert write(writer, message(bars(50))) == [Counts(unchanged=50)]
    assert write(writer, message([{**bar, "symbol": "NEW"} for bar in bars(50)])) == [Counts(written=50)]
    writer.close()
    inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'bars_ohlcv'"
    wait_until(lambda: select(database, inserted) == [(50 + 5 * 50 + 50,)])  # after 0, 4, 12, 28 and 60 upserts


def test_a_newer_message_overwrites_what_differs_and_nothing_else(writer: Writer, database: Connection) -> None:
    write(writer, message(bars(3)))
    before = select(database, "SELECT ctid::text FROM bars_ohlcv ORDER BY ts")
    changed = bars(3)
    changed[1]["close"] = 9.0
    assert write(writer, message(changed, at=1)) == [Counts(written=1, unchanged=2)]
    assert closes(database) == [1.5, 9.0, 1.5]
    after = select(database, "SELECT ctid::text FROM bars_ohlcv ORDER BY ts")
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True]


def test_an_older_message_is_stale_and_changes_nothing(writer: Writer, database: Connection) -> None:
    write(writer, message([bar(close=2.0)], at=10))
    assert write(writer, message([bar(close=1.0), bar(symbol="IBM")], at=9.999_999)) == [Counts(written=1, stale=1)]
    assert closes(database) == [2.0, 1.5]


def test_of_two_messages_of_one_moment_the_later_delivered_wins(writer: Writer, database: Connection) -> None:
    write(writer, message([bar(close=1.0)]))
    assert write(writer, message([bar(close=2.0)])) == [Counts(written=1)]
    assert closes(database) == [2.0]


def test_a_value_may_become_null_and_a_null_a_value(writer: Writer, database: Connection) -> None:
    write(writer, message([bar(volume=1.0), bar(symbol="IBM", volume=None)]))
    assert write(writer, message([bar(volume=None), bar(symbol="IBM", volume=1.0)], at=1)) == [Counts(written=2)]
    assert select(database, "SELECT symbol, volume FROM bars_ohlcv ORDER BY symbol") == [("AAPL", None), ("IBM", 1.0)]


def test_of_equal_keys_in_a_message_the_last_row_wins(writer: Writer, database: Connection) -> None:
    rows = [bar(close=1.0), bar(close=3.0), bar(symbol="aapl", close=2.0), bar(close=3.0)]
    assert write(writer, message(rows)) == [Counts(written=1, stale=2, unchanged=1)]
    assert closes(database) == [3.0]


def test_of_equal_keys_in_a_batch_the_newest_message_wins_in_whatever_order_they_come(
    writer: Writer, database: Connection
) -> None:
    late, early, same = (
        message([bar(close=2.0)], at=2),
        message([bar(close=1.0)], at=1),
        message([bar(close=2.0)], at=2),
    )
    assert write(writer, late, early, same) == [Counts(unchanged=1), Counts(stale=1), Counts(written=1)]
    assert closes(database) == [2.0]
    assert select(database, "SELECT enqueued_at FROM bars_ohlcv") == [(AT.replace(second=2),)]


@dataclass
class Model:
    """What a table holds by the documented rules: by key, value and moment."""

    table: dict[str, tuple[float, int]]

    def deliver(self, batch: Sequence[tuple[int, list[tuple[str, float]]]]) -> list[Counter[str]]:
        counts: list[Counter[str]] = [Counter() for _ in batch]
        merged: dict[str, list[tuple[float, int, int]]] = {}
        for index in sorted(range(len(batch)), key=lambda i: batch[i][0]):
            moment, rows = batch[index]
            for key, value in rows:
                merged.setdefault(key, []).append((value, moment, index))
        for key, candidates in merged.items():
            value, moment, index = candidates.pop()
            for older, _, of in candidates:
                counts[of]["unchanged" if older == value else "stale"] += 1
            stored = self.table.get(key)
            if stored is not None and stored[0] == value:  # not renewed, whatever its moment
                counts[index]["unchanged"] += 1
            elif stored is not None and stored[1] > moment:
                counts[index]["stale"] += 1
            else:
                self.table[key] = (value, moment)
                counts[index]["written"] += 1
        return counts


@st.composite
def deliveries(draw: st.DrawFn) -> list[list[tuple[int, list[tuple[str, float]]]]]:
    """Messages (moment, rows of a key and a value), delivered in any order, some again, merged in any way."""
    row = st.tuples(st.sampled_from(["A", "B", "É", "😀"]), st.sampled_from([1.0, 2.0, 3.0]))
    messages = draw(st.lists(st.tuples(st.integers(0, 3), st.lists(row, max_size=5)), min_size=1, max_size=6))
    delivered = draw(st.permutations(messages + draw(st.lists(st.sampled_from(messages), max_size=4))))
    batches: list[list[tuple[int, list[tuple[str, float]]]]] = [[]]
    for one in delivered:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(one)
    return batches


@given(batches=deliveries())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_messages_are_delivered_merged_and_replayed_the_table_is_what_the_model_says(
    writer: Writer, database: Connection, batches: list[list[tuple[int, list[tuple[str, float]]]]]
) -> None:
    database.execute("TRUNCATE bars_ohlcv")
    model = Model({})
    for batch in batches:
        expected = model.deliver(batch)
        messages = [message([bar(symbol=key, close=value) for key, value in rows], at=moment) for moment, rows in batch]
        assert write(writer, *messages) == [Counts(**counts) for counts in expected]
    found = select(database, "SELECT symbol, close, extract(epoch FROM enqueued_at)::float8 FROM bars_ohlcv")
    assert {symbol: (close, moment - AT.timestamp()) for symbol, close, moment in found} == model.table


@given(batches=deliveries(), seed=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_where_no_row_is_sent_twice_alike_only_the_moments_decide(
    writer: Writer,
    database: Connection,
    batches: list[list[tuple[int, list[tuple[str, float]]]]],
    seed: random.Random,
) -> None:
    database.execute("TRUNCATE bars_ohlcv")
    # Each message has a moment of its own, and its values tell which it is.
    moments = seed.sample(range(100), sum(map(len, batches)))
    newest: dict[str, float] = {}
    for batch in batches:
        messages = []
        for _, rows in batch:
            moment = moments.pop()
            keys = {key for key, _ in rows}
            newest |= {key: max(float(moment), newest.get(key, 0.0)) for key in keys}
            messages.append(message([bar(symbol=key, close=moment) for key in keys], at=moment))
        write(writer, *messages)
    assert dict(select(database, "SELECT symbol, close FROM bars_ohlcv")) == newest


# --- Values that are easily lost -------------------------------------------------------------------------------------


def test_times_and_dates_at_the_extremes_read_back_equal(writer: Writer, database: Connection) -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    rows = [
        {"provider": "p", "symbol": "s", "strike": 1, "right": "C", "ts": ts.isoformat(), "expiry": expiry.isoformat()}
        for ts, expiry in ((first, date.min), (last, date.max), (EPOCH, date(2000, 1, 1)))
    ]
    assert write(writer, message(rows, name="options"), name="options") == [Counts(written=3)]
    assert select(database, "SELECT ts, expiry FROM options_snap ORDER BY ts") == [
        (first, date.min),
        (EPOCH, date(2000, 1, 1)),
        (last, date.max),
    ]


def test_metadata_reads_back_equal_and_is_compared_by_its_content(writer: Writer, database: Connection) -> None:
    signal = {"provider": "p", "symbol": "s", "ts": AT.isoformat(), "name": "n"}
    metadata = {"a": [1, 2.5, None, True, {"ü": "\u2028😀\\"}], "": {}, "big": 2**80}
    assert write(writer, message([{**signal, "metadata": metadata}], name="signals"), name="signals") == [
        Counts(written=1)
    ]
    assert select(database, "SELECT metadata FROM signals") == [(metadata,)]
    turned = message([{**signal, "metadata": dict(reversed(metadata.items()))}], name="signals", at=1)
    assert write(writer, turned, name="signals") == [Counts(unchanged=1)]
    assert write(writer, message([signal], name="signals", at=2), name="signals") == [Counts(written=1)]
    assert select(database, "SELECT metadata FROM signals") == [(None,)]


def test_doubles_read_back_bit_for_bit(writer: Writer, database: Connection) -> None:
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e18, -(2.0**63), 123456.789e-300]
    write(writer, message([bar(symbol=str(i), close=number) for i, number in enumerate(numbers)]))
    assert closes(database) == numbers


def test_decimals_come_as_strings(writer: Writer, database: Connection) -> None:
    write(writer, message([bar(symbol="A", close="190.0100"), bar(symbol="B", close="1e-5")]))
    assert closes(database) == [190.01, 1e-5]
    assert write(writer, message([bar(symbol="A", close=190.01)], at=1)) == [Counts(unchanged=1)]


def test_symbols_are_stored_as_they_are(writer: Writer, database: Connection) -> None:
    symbols = ["ÉCLAIR", "株式", "😀", "A'B\"C\\D", "%S", "A\tB\nC", "\\N", " ", "\x01", "\u202e"]
    sent = message([bar(symbol=symbol) for symbol in symbols])
    assert write(writer, sent) == [Counts(written=len(symbols))]
    assert write(writer, sent) == [Counts(unchanged=len(symbols))]
    assert {symbol for (symbol,) in select(database, "SELECT symbol FROM bars_ohlcv")} == set(symbols)


def noise(length: int, seed: int, first: int = 0x20000, last: int = 0x2A000) -> str:
    """A text that does not compress, and so fills an index entry; of four bytes a character."""
    shuffle = random.Random(seed)  # noqa: S311
    return "".join(chr(shuffle.randint(first, last)) for _ in range(length))


def test_the_longest_keys_fit_into_the_index(writer: Writer, database: Connection) -> None:
    # In upper case, U+0390 takes three characters of two bytes.
    texts = {
        "provider": noise(MAX_KEY_LENGTH, 1),
        "symbol": "\u0390" * MAX_KEY_LENGTH,
        "name": noise(MAX_KEY_LENGTH, 2),
    }
    signal = message([{**texts, "ts": AT.isoformat()}], name="signals")
    assert write(writer, signal, name="signals") == [Counts(written=1)]
    symbols = [noise(MAX_KEY_LENGTH, seed) for seed in range(20)]
    rows = [bar(provider=noise(MAX_KEY_LENGTH, 50), interval=noise(MAX_KEY_LENGTH, 51), symbol=s) for s in symbols]
    assert write(writer, message(rows)) == [Counts(written=20)]
    assert {symbol for (symbol,) in select(database, "SELECT symbol FROM bars_ohlcv")} == set(symbols)


def test_minus_zero_and_zero_are_one_key(writer: Writer, database: Connection) -> None:
    option = {"provider": "p", "symbol": "s", "right": "C", "ts": AT.isoformat(), "expiry": "2024-01-19"}
    rows = [{**option, "strike": 0.0, "bid": 1}, {**option, "strike": -0.0, "bid": 2}]
    assert write(writer, message(rows, name="options"), name="options") == [Counts(written=1, stale=1)]
    assert write(writer, message(rows[1:], name="options"), name="options") == [Counts(unchanged=1)]


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_can_be_written_replayed_and_corrected(writer: Writer, database: Connection, name: str) -> None:
    texts = {"provider": "p", "symbol": "s", "interval": "1m", "name": "n", "id": "i", "title": "t", "option_type": "C"}
    times = {"ts": AT.isoformat(), "expiry": "2024-01-19"}
    numbers = dict.fromkeys(["seq", "strike", "open", "high", "low", "price"], 1)
    values = ["close", "bid", "eps", "value", "sentiment_score"]
    known = {str(column.name) for column in DATASETS[name].columns}
    every_field: Row = {**texts, **times, **numbers, **dict.fromkeys(values, 1)}
    row = {field: value for field, value in every_field.items() if field in known}
    corrected = {**row, **{field: 2 for field in values if field in row}}
    assert write(writer, message([row], name=name), name=name) == [Counts(written=1)]
    assert write(writer, message([row], name=name, at=1), name=name) == [Counts(unchanged=1)]
    assert write(writer, message([corrected], name=name, at=2), name=name) == [Counts(written=1)]
    assert write(writer, message([row], name=name, at=1), name=name) == [Counts(stale=1)]
    assert select(database, f'SELECT count(*) FROM "{DATASETS[name].table.name}"') == [(1,)]


def test_a_batch_much_larger_than_usual_is_written_in_one_go(writer: Writer, database: Connection) -> None:
    rows = bars(20_000)
    random.Random(1).shuffle(rows)  # noqa: S311
    assert write(writer, message(rows[:15_000]), message(rows[10_000:])) == [
        Counts(written=10_000, unchanged=5_000),
        Counts(written=10_000),
    ]
    assert select(database, "SELECT count(*), count(DISTINCT xmin::text) FROM bars_ohlcv") == [(20_000, 1)]


# --- Concurrent writers ----------------------------------------------------------------------------------------------


def test_rows_are_written_in_the_bytewise_order_of_their_keys(writer: Writer, database: Connection) -> None:
    providers = ["a", "B", "b", "A", "é", "Z", "ｱ", "😀", "_", "a b", "a-b", "ß", "ab"]
    write(writer, message([bar(provider=provider) for provider in providers]))
    by_place = [provider for (provider,) in select(database, "SELECT provider FROM bars_ohlcv ORDER BY ctid")]
    by_key = [provider for (provider,) in select(database, "SELECT provider FROM bars_ohlcv ORDER BY provider")]
    assert by_place == by_key == sorted(providers, key=str.encode)


def test_concurrent_overlapping_batches_never_deadlock(database_url: str, database: Connection) -> None:
    rounds, symbols = 60, [f"{letter}{i}" for letter in "ABÉß😀" for i in range(16)]
    ready = threading.Barrier(2, timeout=TIMEOUT_S)

    def run(number: int) -> Counter[str]:
        shuffle = random.Random(number)  # noqa: S311
        writer, total = Writer(database_url), Counter[str]()
        for moment in range(rounds):
            messages = [
                message([bar(symbol=s, close=shuffle.random()) for s in shuffle.sample(symbols, 40)], at=moment)
                for _ in range(2)
            ]
            ready.wait()
            for counts in write(writer, *messages):
                total.update(written=counts.written, unchanged=counts.unchanged, stale=counts.stale)
        writer.close()
        return total

    with ThreadPoolExecutor(2) as pool:
        totals = list(pool.map(run, range(2)))
    assert sum(sum(total.values()) for total in totals) == 2 * rounds * 2 * 40
    assert select(database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
    assert select(database, "SELECT count(*), count(DISTINCT symbol) FROM bars_ohlcv") == [(len(symbols),) * 2]


def test_concurrent_writers_leave_the_newest_row(database_url: str, database: Connection) -> None:
    moments = list(range(60))
    random.Random(1).shuffle(moments)  # noqa: S311

    def run(number: int) -> None:
        writer = Writer(database_url)
        for moment in moments[number::3]:
            write(writer, message(bars(5, close=float(moment)), at=moment))
        writer.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert closes(database) == [59.0] * 5


def test_concurrent_redeliveries_of_rejects_never_deadlock(database_url: str, database: Connection) -> None:
    name = urlsplit(database_url).path[1:]
    database.execute(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '20ms'")
    ready = threading.Barrier(2, timeout=TIMEOUT_S)

    def run(step: int) -> None:
        writer = Writer(database_url)
        try:
            for number in range(10):
                messages = [message([7] * 5, task_id=f"{number}-{i}") for i in range(60)]
                ready.wait()
                write(writer, *messages[::step])
        except BaseException:
            ready.abort()
            raise
        finally:
            writer.close()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(run, step) for step in (1, -1)]:
            assert not isinstance(future.exception(), DatabaseUnavailable)
    assert select(database, "SELECT count(*) FROM dead_letters") == [(3_000,)]


# --- Dead letters ----------------------------------------------------------------------------------------------------

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


def test_rejected_rows_are_dead_letters_in_the_same_commit(writer: Writer, database: Connection) -> None:
    database.execute("ALTER TABLE dead_letters RENAME TO gone")
    with pytest.raises(DatabaseUnavailable):
        write(writer, message([bar(), 7]))
    assert closes(database) == []
    database.execute("ALTER TABLE gone RENAME TO dead_letters")
    assert write(writer, message([bar(), 7])) == [Counts(written=1, rejected=1)]


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
    decoded = decode_rows(DATASETS["bars"], text, {}, 0)
    sent = DecodedMessage(task_id="t", decoded=decoded, enqueued_at=0, row_text=str)
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
    assert write(writer, message([bar(), 7], note=note)) == [Counts(written=1, rejected=1)]
    assert select(database, "SELECT count(*) FROM dead_letters WHERE defaults IS NOT NULL") == [(1,)]


@pytest.mark.parametrize("refused", [(0,), (7,), (19,), (3, 4, 12), tuple(range(20))])
def test_a_row_that_only_postgres_refuses_is_a_dead_letter_and_the_others_are_written(
    writer: Writer, database: Connection, refused: tuple[int, ...]
) -> None:
    database.execute("ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close < 1000)")
    rows: list[Any] = [{**row, "close": 5_000.0} if i in refused else row for i, row in enumerate(bars(20))]
    first, second = message([*rows[:10], "no row"], task_id="a"), message(rows[10:], task_id="b")
    lost = [sum(i < 10 for i in refused), sum(i >= 10 for i in refused)]
    assert write(writer, first, second) == [
        Counts(written=10 - lost[0], rejected=1 + lost[0]),
        Counts(written=10 - lost[1], rejected=lost[1]),
    ]
    assert closes(database) == [1.5] * (20 - len(refused))
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
    database.execute("ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close < 1000)")
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
    database.execute("ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close < 1000)")
    oldest = message([bar(symbol="IBM"), bar(close=1.0), bar(close=2.0)], at=0, task_id="a")
    middle = message([bar(close=2.0), bar(close=5_000.0)], at=1, task_id="b")
    newest = message([bar(close=6_000.0), bar(symbol="IBM")], at=2, task_id="c")
    assert write(writer, newest, oldest, middle) == [
        Counts(rejected=1, written=1),
        Counts(unchanged=2, stale=1),
        Counts(written=1, rejected=1),
    ]
    assert select(database, "SELECT symbol, close, enqueued_at FROM bars_ohlcv ORDER BY symbol") == [
        ("AAPL", 2.0, AT.replace(second=1)),
        ("IBM", 1.5, AT.replace(second=2)),
    ]
    assert select(database, "SELECT task_id, position FROM dead_letters ORDER BY 1, 2") == [("b", 1), ("c", 0)]


def test_where_postgres_refuses_every_row_of_a_key_each_is_a_dead_letter(writer: Writer, database: Connection) -> None:
    database.execute("ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close < 1000)")
    write(writer, message([bar(close=1.0)]))
    rows = [bar(close=5_000.0 + i) for i in range(3)]
    assert write(writer, message(rows, at=1), message(rows, at=2)) == [Counts(rejected=3)] * 2
    assert closes(database) == [1.0]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(6,)]


def test_the_writer_goes_on_after_rows_were_refused(writer: Writer, database: Connection) -> None:
    database.execute("ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close < 1000)")
    write(writer, message([bar(close=5_000.0)]))
    assert write(writer, message([bar(symbol="IBM")])) == [Counts(written=1)]
    assert closes(database) == [1.5]


def letter(**changes: Any) -> DeadLetter:
    given: dict[str, Any] = {"task_id": "t", "position": 0, "reason": "body: no JSON", "enqueued_at": 0}
    return DeadLetter(**{**given, "pattern": "body: no JSON", **changes})


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


# --- Postgres is not well --------------------------------------------------------------------------------------------


def backend(database: Connection) -> int:
    """Process id of the writer's session."""
    ((pid,),) = select(
        database,
        "SELECT pid FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'market-data-store%'",
    )
    assert isinstance(pid, int)
    return pid


def test_a_writer_reconnects_after_its_backend_was_terminated(writer: Writer, database: Connection) -> None:
    sent = message([bar(), 7])
    write(writer, sent)
    first = backend(database)
    database.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    with pytest.raises(DatabaseUnavailable) as caught:
        write(writer, sent)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert write(writer, sent) == [Counts(unchanged=1, rejected=1)]
    assert backend(database) != first


def test_a_write_that_is_interrupted_is_written_not_at_all(
    writer: Writer, database: Connection, database_url: str
) -> None:
    write(writer, message([bar(close=1.0)]))
    sent = message([bar(close=2.0), bar(symbol="IBM"), 7], at=1)
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT * FROM bars_ohlcv FOR UPDATE")
        attempt = pool.submit(write, writer, sent)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: select(database, waiting))
        database.execute("SELECT pg_terminate_backend(%s, 5000)", [backend(database)])
        assert isinstance(attempt.exception(TIMEOUT_S), DatabaseUnavailable)
    assert closes(database) == [1.0]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert write(writer, sent) == [Counts(written=2, rejected=1)]


@pytest.mark.parametrize(
    ("setting", "sqlstate"),
    [
        ("lock_timeout = '20ms'", "55P03"),
        ("statement_timeout = '20ms'", "57014"),
        ("default_transaction_read_only = on", "25006"),
    ],
)
def test_an_error_that_is_not_the_rows_fault_leaves_no_dead_letter(
    database_url: str, database: Connection, setting: str, sqlstate: str
) -> None:
    name = urlsplit(database_url).path[1:]
    database.execute(f'ALTER DATABASE "{name}" SET {setting}')
    writer = Writer(database_url)
    with psycopg.connect(database_url) as other:
        if sqlstate != "25006":
            other.execute("LOCK TABLE bars_ohlcv IN EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailable, match=rf"SQLSTATE {sqlstate}"):
            write(writer, message([bar()]))
    database.execute(f'ALTER DATABASE "{name}" RESET ALL')
    assert write(writer, message([bar()])) == [Counts(written=1)]
    writer.close()
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


def test_a_postgres_that_cannot_be_reached_is_named_without_its_password() -> None:
    writer = Writer("postgresql://user:secret@127.0.0.1:1/db", connect_timeout_s=1)
    with pytest.raises(DatabaseUnavailable, match=r'"127\.0\.0\.1", port 1') as caught:
        write(writer, message([bar()]))
    assert "secret" not in str(caught.value)
    with pytest.raises(DatabaseUnavailable):
        writer.keep([letter()])


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://user:se%cret@127.0.0.1:1/db", id="a percent sign that is not escaped"),
        pytest.param("postgresql://user:se cret@127.0.0.1:1/db", id="a space"),
        pytest.param("postgresql://user:secret@[::1/db", id="half a bracket"),
    ],
)
def test_a_url_that_libpq_cannot_parse_is_not_shown_with_its_password(url: str) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        write(Writer(url, connect_timeout_s=1), message([bar()]))
    assert "cret" not in str(caught.value)


def test_missing_tables_are_unavailable_until_they_are_migrated(empty_database_url: str) -> None:
    writer = Writer(empty_database_url)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match='relation "bars_ohlcv" does not exist'):
            write(writer, message([bar()]))
        with pytest.raises(DatabaseUnavailable, match='relation "dead_letters" does not exist'):
            writer.keep([letter()])
    schema.upgrade(empty_database_url)
    assert write(writer, message([bar(), 7])) == [Counts(written=1, rejected=1)]
    writer.close()


def test_a_writer_outlives_a_table_that_is_made_anew(writer: Writer, database: Connection) -> None:
    write(writer, message([bar()]))
    database.execute("ALTER TABLE bars_ohlcv ADD COLUMN note text")
    assert write(writer, message([bar(symbol="IBM")])) == [Counts(written=1)]
    database.execute("CREATE TABLE copy (LIKE bars_ohlcv INCLUDING ALL)")
    database.execute("DROP TABLE bars_ohlcv")
    database.execute("ALTER TABLE copy RENAME TO bars_ohlcv")
    assert write(writer, message([bar()])) == [Counts(written=1)]
    assert closes(database) == [1.5]


def test_a_time_limit_in_the_middle_of_a_statement_leaves_nothing_behind_and_the_writer_usable(
    writer: Writer, database: Connection, database_url: str
) -> None:
    class TimeLimit(Exception):
        pass

    def strike(*_: object) -> None:
        raise TimeLimit

    def strike_when_the_writer_waits() -> None:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: select(database, waiting))
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
            other.execute("LOCK TABLE bars_ohlcv IN EXCLUSIVE MODE")
            striking = pool.submit(strike_when_the_writer_waits)
            with pytest.raises(TimeLimit):
                write(writer, message([bar(close=1.0), 7]))
            striking.result(TIMEOUT_S)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert write(writer, message([bar(symbol="IBM", close=2.0)])) == [Counts(written=1)]
    assert closes(database) == [2.0]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


def test_a_closed_writer_opens_again_when_it_is_needed(writer: Writer, database: Connection) -> None:
    write(writer, message([bar()]))
    writer.close()
    writer.close()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    wait_until(lambda: select(database, sessions) == [(1,)])
    assert write(writer, message([bar()])) == [Counts(unchanged=1)]


def test_the_stage_holds_nothing_between_writes(writer: Writer, database: Connection) -> None:
    for symbol in ("A", "B", "C"):
        assert write(writer, message([bar(symbol=symbol)])) == [Counts(written=1)]
    assert len(closes(database)) == 3


def test_counts_are_summed_number_by_number() -> None:
    assert Counts(1, 2, 3, 4) + Counts(10, 20, 30, 40) == Counts(11, 22, 33, 44)
    assert sum([Counts(written=1)] * 3, start=Counts()) == Counts(written=3)
