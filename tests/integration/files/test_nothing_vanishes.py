"""Whatever a valid row holds comes back from an export: as a column's value, or in the metadata under its own name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.databases import Connection
from support.writing import message

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.files.exporting import export
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.wire.arrow import frame_of, read_table
from market_data_store.wire.fields import Field, fields_of, names_of
from market_data_store.wire.text import name_of

Row = dict[str, Any]

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS, min_size=1, max_size=8)
NAMES = TEXTS.filter(name_of)
FLOATS = st.floats(-(2.0**63), 2.0**63)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
#: ISO 8601 with nine digits, of which Postgres's own type keeps six.
MOMENTS = st.builds(
    lambda moment, nanos: f"{moment.isoformat(timespec='microseconds')}{nanos:03}+00:00",
    st.datetimes(datetime(1973, 1, 2), datetime(2099, 12, 30)),
    st.sampled_from([0, 1, 500, 789, 999]),
)
#: jsonb has no -0.0.
JSON_FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: str(number) != "-0.0")
#: What an unknown field may hold; in a table, all values of a column are of one kind.
UNKNOWN: dict[str, st.SearchStrategy[Any]] = {
    "integers": INTEGERS,
    "floats": JSON_FLOATS,
    "texts": st.text(CHARACTERS, max_size=8),
    "truths": st.booleans(),
    "lists": st.lists(JSON_FLOATS, max_size=3),
}
ANYTHING = st.recursive(
    st.one_of(*UNKNOWN.values(), st.integers(-(2**80), 2**80)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner | st.none(), max_size=2),
    max_leaves=4,
)
BESIDE = ("order", "Taker", "ünï", "a b", "cost")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": NAMES,
    "float8": FLOATS,
    "int8": INTEGERS,
    "int4": st.integers(0, 999),
    "bool": st.booleans(),
    "text[]": st.lists(TEXTS, max_size=3),
    "timestamptz": MOMENTS,
    "date": st.dates(date(1900, 1, 1), date(2100, 1, 1)).map(date.isoformat),
    "jsonb": st.dictionaries(TEXTS.map("own {}".format), ANYTHING, min_size=1, max_size=2),
}


def valid(f: Field) -> st.SearchStrategy[Any]:
    if f.rule.letters:
        return st.sampled_from(["C", "P"])
    return NAMES if f.rule.trimmed else VALUES[f.kind.copy_type]


@st.composite
def sent_rows(draw: st.DrawFn, *, tables: bool) -> tuple[Dataset, list[Row]]:
    """Rows of a dataset, each field under any of its names; for a table, with one kind of value in each column."""
    dataset = DATASETS[draw(st.sampled_from(sorted(DATASETS)))]
    needed: dict[str, st.SearchStrategy[Any]] = {}
    extra: dict[str, st.SearchStrategy[Any]] = {}
    for f in fields_of(dataset):
        if f.rule.nanos_of or (tables and f.rule.keeps_unknown):
            continue
        # A trade_id fills two columns; it has a test of its own.
        name = draw(st.sampled_from([name for name in f.names if name not in names_of(dataset).shared] or [f.name]))
        (needed if f.required or f.key else extra)[name] = valid(f)
    for name in draw(st.lists(st.sampled_from(BESIDE), unique=True, max_size=3)):
        extra[name] = draw(st.sampled_from(sorted(UNKNOWN)).map(UNKNOWN.__getitem__)) if tables else ANYTHING
    return dataset, draw(st.lists(st.fixed_dictionaries(needed, optional=extra), min_size=1, max_size=4))


def key_of(dataset: Dataset, row: Row) -> tuple[Any, ...]:
    return tuple(as_stored(f, next(row[name] for name in f.names if name in row)) for f in fields_of(dataset) if f.key)


def as_stored(f: Field, value: Any) -> Any:
    if f.rule.trimmed and not f.rule.letters:
        return name_of(value)
    if f.kind.copy_type == "timestamptz":
        return datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", value))
    return value


def as_doubles(value: Any, sent: Any) -> Any:
    """Return a value of jsonb with a double wherever one was sent: jsonb writes 4.682507655522803e16 as an integer."""
    if isinstance(sent, dict) and isinstance(value, dict):
        return {name: as_doubles(inner, sent.get(name)) for name, inner in value.items()}
    if isinstance(sent, list) and isinstance(value, list):
        return [as_doubles(inner, one) for inner, one in zip_longest(value, sent)]
    return float(value) if isinstance(sent, float) and type(value) is int else value


def check(dataset: Dataset, sent: Row, exported: Row) -> None:
    """Every field of the sent row is in the exported one, equal, and nothing else is."""
    kept = dict(exported["metadata"] or {})
    for f in fields_of(dataset):
        name = next((name for name in f.names if sent.get(name) is not None), None)
        if f.rule.nanos_of:
            continue
        if f.name == "metadata":
            for inner, value in (sent.get("metadata") or {}).items():
                assert as_doubles(kept.pop(inner), value) == value
        elif name is None:
            assert exported[f.name] is None
        else:
            found = exported[f.name]
            if f.kind.copy_type == "timestamptz":
                found = datetime.fromisoformat(found).isoformat(timespec="microseconds")
                in_column = f.name == "ts" and "nanos" in exported
                nanos = exported["nanos"] if in_column else kept.pop(f"{f.name}_nanos", None)
                assert nanos == (int(sent[name][26:29]) or None)
            assert as_stored(f, found) == as_stored(f, sent[name])
            assert str(found)[0] == str(sent[name])[0] or f.kind.copy_type != "float8"  # the sign of a zero
    known = {name for f in fields_of(dataset) for name in f.names}
    beside = {name: value for name, value in sent.items() if name not in known and value is not None}
    assert as_doubles(kept, beside) == beside


@pytest.fixture
def database(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def comes_back(database: Connection, url: str, file: Path, dataset: Dataset, rows: list[Row], sent: Any) -> None:
    database.execute(f"TRUNCATE {dataset.table.name}")
    with closing(Writer(url)) as writer:
        (counts,) = writer.write(decoded(dataset, [sent]), [sent]).counts
    assert counts.rejected == 0
    export(database, dataset, file, {})
    newest = {key_of(dataset, row): row for row in rows}
    exported = {key_of(dataset, row): row for row in map(json.loads, file.read_text().rstrip("\n").split("\n"))}
    assert exported.keys() == newest.keys()
    for key, row in newest.items():
        check(dataset, row, exported[key])


hypothesis = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@hypothesis
@given(sent=sent_rows(tables=False))
def test_of_json(sent: tuple[Dataset, list[Row]], database: Connection, database_url: str, tmp_path: Path) -> None:
    dataset, rows = sent
    comes_back(database, database_url, tmp_path / "x.ndjson", dataset, rows, message(rows, name=dataset.name))


@hypothesis
@given(sent=sent_rows(tables=True))
def test_of_a_table(sent: tuple[Dataset, list[Row]], database: Connection, database_url: str, tmp_path: Path) -> None:
    dataset, rows = sent
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = frame_of(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}))
    table = DecodedMessage(task_id="t", dataset=dataset, rows=read_table(dataset, frame, {}), enqueued_at=0)
    comes_back(database, database_url, tmp_path / "x.ndjson", dataset, rows, table)
