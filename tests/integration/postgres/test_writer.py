"""The writer on a real Postgres: what is counted and stored of messages, in whatever order they come."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.databases import Connection
from support.partitions import partitions
from support.waiting import wait_until
from support.writing import AT, LOG_WAYS, NO_COPY, bar, bars, closes, message, select, ways, write, written

from market_data_store.datasets import DATASETS
from market_data_store.datasets.spans import Span
from market_data_store.postgres.converting import convert
from market_data_store.postgres.partitioning import make
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

#: The days of all rows here.
DAYS = [AT + timedelta(days=day) for day in range(-1, 3)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Everything here holds for a plain table, and for one with partitions; what draws examples runs on the first."""
    kinds = ["plain"] if hasattr(metafunc.function, "hypothesis") else ["plain", "partitioned"]
    metafunc.parametrize("kind_of_table", kinds, indirect=True)


@pytest.fixture(autouse=True)
def kind_of_table(
    request: pytest.FixtureRequest, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Make the table of bars one of this kind."""
    if request.param == "plain":
        yield
        return
    with partitions(monkeypatch, "bars=day"):
        convert(database, DATASETS["bars"], Span.DAY)
        for day in DAYS:
            make(database, DATASETS["bars"], Span.DAY, Span.DAY.start_of(day))
        yield


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
    row = bar(symbol="brk.B", open="190.0100", volume=None, trade_count=2**63 - 1, vwap=0.1 + 0.2)
    assert write(writer, message([row], at=1.25)) == [Counts(written=1)]
    assert select(database, "SELECT * FROM bars_ohlcv") == [
        (
            "ibkr",
            "brk.B",
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
            None,
            None,
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
    statistics = "SELECT {} FROM pg_stat_user_tables WHERE relname LIKE 'bars_ohlcv%'"
    # The first replay was tried as new rows: those are dead.
    wait_until(lambda: select(database, statistics.format("sum(n_tup_ins)")) == [(100,)])
    assert select(database, statistics.format("sum(n_tup_upd), sum(n_tup_del), sum(n_live_tup)")) == [(0, 0, 50)]
    assert select(database, statistics.format("sum(n_dead_tup)")) == [(50,)]


def test_replays_are_tried_as_new_rows_only_once(writer: Writer, database: Connection) -> None:
    write(writer, message(bars(50)))
    for _ in range(100):
        assert write(writer, message(bars(50))) == [Counts(unchanged=50)]
    assert write(writer, message([{**bar, "symbol": "NEW"} for bar in bars(50)])) == [Counts(written=50)]
    writer.close()
    inserted = "SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE relname LIKE 'bars_ohlcv%'"
    wait_until(lambda: select(database, inserted) == [(50 + 50 + 50,)])


def test_new_rows_after_replays_are_soon_copied_again(writer: Writer, database: Connection) -> None:
    for _ in range(20):
        write(writer, message(bars(50)))
    database.execute(LOG_WAYS)
    for symbol in ("N1", "N2", "N3"):
        assert write(writer, message(bars(50, symbol=symbol))) == [Counts(written=50)]
    assert ways(database) == ["upsert", "copy", "copy"]


def test_rows_that_change_again_and_again_are_tried_as_new_ones_only_once(writer: Writer, database: Connection) -> None:
    write(writer, message(bars(50)))
    for at in range(1, 61):
        assert write(writer, message(bars(50, close=float(at)), at=at)) == [Counts(written=50)]
    writer.close()
    inserted = "SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE relname LIKE 'bars_ohlcv%'"
    wait_until(lambda: select(database, inserted) == [(50 + 50,)])


def test_new_rows_after_changed_ones_are_copied_at_once(writer: Writer, database: Connection) -> None:
    for at in range(20):
        write(writer, message(bars(50, close=float(at)), at=at))
    database.execute(LOG_WAYS)
    for symbol in ("N1", "N2", "N3"):
        assert write(writer, message(bars(50, symbol=symbol))) == [Counts(written=50)]
    assert ways(database) == ["copy", "copy", "copy"]


def test_where_no_row_can_be_copied_that_is_tried_more_and_more_rarely(writer: Writer, database: Connection) -> None:
    database.execute(LOG_WAYS)
    database.execute(NO_COPY.format("XX000"))
    for number in range(40):
        assert write(writer, message(bars(50, symbol=f"N{number}"))) == [Counts(written=50)]
    assert ways(database) == ["upsert"] * 40
    numbers = [number for (number,) in select(database, "SELECT number FROM ways ORDER BY number")]
    # A copy that failed has taken a number, too.
    assert [batch for batch, (a, b) in enumerate(pairwise([0, *numbers])) if b - a > 1] == [0, 1, 9, 25]


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
    rows = [bar(close=1.0), bar(close=3.0), bar(symbol=" AAPL ", close=2.0), bar(close=3.0)]
    assert write(writer, message(rows)) == [Counts(written=1, superseded=3)]
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


@pytest.mark.parametrize("rows", [1, 50])
def test_stale_rows_say_how_late_they_are(writer: Writer, rows: int) -> None:
    write(writer, message(bars(rows), at=100))
    write(writer, message(bars(rows, close=2.0), at=160.5))
    late = written(writer, message([*bars(rows), bar(symbol="IBM")], at=100.25))
    assert late.counts == [Counts(written=1, stale=rows)]
    assert late.late == [60.25] * rows
    older, newer = message([bar(symbol="MSFT", close=1.0)], at=200), message([bar(symbol="MSFT")], at=201.5)
    assert written(writer, newer, older).late == [1.5], "also those that another message of the batch replaced"


def test_rejects_are_named_with_their_letters(writer: Writer, database: Connection) -> None:
    database.execute("ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close < 1000)")
    rows = [bar(close="x"), bar(close=5_000.0), bar(symbol="IBM"), 7]
    first, other = message(rows, task_id="a"), message([bar(symbol="IBM"), bar(open=None)], task_id="b")
    for _ in range(2):  # a redelivery has the same letters
        found = written(writer, first, other)
        letters = select(database, "SELECT task_id, position, reason, id, pattern FROM dead_letters")
        expected = [[row[1:] for row in sorted(letters) if row[0] == task_id] for task_id in ("a", "b")]
        named = [[msgspec.structs.astuple(rejection) for rejection in by_message] for by_message in found.rejections]
        assert named == expected
        assert [len(by_message) for by_message in named] == [3, 1]


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
            value, moment, index = candidates[-1]
            for (older, _, of), (_, _, by) in pairwise(candidates):
                counts[of]["superseded" if of == by else "unchanged" if older == value else "stale"] += 1
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
def test_without_ties_only_the_enqueue_times_decide(
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
