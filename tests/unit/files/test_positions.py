"""Where a load goes on: behind the rows of which the results have arrived, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from market_data_store.datasets import DATASETS
from market_data_store.files.options import Options
from market_data_store.files.positions import Marks, Position, content_of, continued, load_fingerprint
from market_data_store.files.rows import Made

BARS = Options(dataset=DATASETS["bars"])


def good(*rows: int, variant: int = 0) -> Made:
    return Made({}, pa.array(rows, pa.int64()), table=pa.table({"open": list(rows)}), variant=variant)


def bad(*rows: int) -> Made:
    return Made({}, pa.array(rows, pa.int64()), bad=[{"row": row} for row in rows])


def rest(marks: Marks, made: Made) -> list[int]:
    left = marks.rest(made)
    if left is None:
        return []
    values = left.bad if left.table is None else left.table.column("open").to_pylist()
    assert len(values) == len(left.rows)
    found: list[int] = left.rows.to_pylist()
    return found


def sent(*parts: Made, safe: int) -> Marks:
    marks = Marks()
    for part in parts:
        marks.add(part)
    marks.settle(safe)
    return marks


def test_exactly_the_rows_without_a_result_are_sent_again() -> None:
    parts = [good(0, 1, 3), bad(2), good(4, 6, 7), bad(5)]
    order = [row for part in parts for row in part.rows.to_pylist()]
    for safe in range(len(order) + 1):
        before = sent(*parts, safe=safe)
        marks = Marks(dict(before.rows))
        assert [row for part in parts for row in rest(marks, part)] == order[safe:]


def test_another_division_into_batches_changes_nothing() -> None:
    marks = Marks(dict(sent(good(0, 1, 3), bad(2), good(4, 6, 7), bad(5), safe=5).rows))
    assert [rest(marks, part) for part in (good(0), good(1, 3, 4, 6), good(7), bad(2, 5))] == [[], [6], [7], [5]]


def test_variants_of_a_file_have_marks_of_their_own() -> None:
    marks = sent(good(0, 1), good(0, 1, variant=1), safe=3)
    assert rest(marks, good(0, 1, 2)) == [2]
    assert rest(marks, good(0, 1, 2, variant=1)) == [1, 2]


def test_settling_says_whether_there_is_something_to_note() -> None:
    marks = sent(good(0, 1), safe=0)
    assert [marks.settle(safe) for safe in (1, 1, 2, 2)] == [True, False, True, False]


def position_after(*contents: str, within: str = "", **rows: int) -> Position:
    position = Position()
    for content in contents:
        position = position.after(content)
    return msgspec.structs.replace(position, file=within, rows=rows)


def test_it_goes_on_only_where_the_files_before_are_the_same() -> None:
    position = position_after("a", "b", within="c", x=7)
    assert continued(position, ["a", "b", "c"]) == position
    assert continued(position, ["a", "b", "c", "d"]) == position
    assert continued(position, ["a", "b", "changed"]) == position_after("a", "b")
    for others in (["a", "changed", "c"], ["b", "a", "c"], ["a"], []):
        assert continued(position, others) == Position()


def test_a_position_survives_json() -> None:
    position = msgspec.structs.replace(position_after("a", within="b", x=7), rejects=[("task", 3, 9)])
    text: Any = msgspec.json.decode(msgspec.json.encode(position.noted()))
    assert msgspec.convert(text, Position) == position


def test_a_load_is_known_by_its_options_and_paths(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    one = load_fingerprint(BARS, ["a.csv"])
    assert load_fingerprint(Options(dataset=DATASETS["bars"]), [str(tmp_path / "a.csv")]) == one
    others = [
        load_fingerprint(BARS, ["a.csv", "b.csv"]),
        load_fingerprint(Options(dataset=DATASETS["ticks"]), ["a.csv"]),
        load_fingerprint(Options(dataset=DATASETS["bars"], constants={"symbol": "S"}), ["a.csv"]),
        load_fingerprint(Options(dataset=DATASETS["bars"], last_wins=True), ["a.csv"]),
        load_fingerprint(BARS, ["-"]),
    ]
    assert len({one, *others}) == 6


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("1", "2", "3"))
    one.write_bytes(b"x" * 3_000_000)
    two.write_bytes(b"x" * 3_000_000)
    other.write_bytes(b"x" * 2_999_999 + b"y")
    assert content_of(one) == content_of(two) != content_of(other)
