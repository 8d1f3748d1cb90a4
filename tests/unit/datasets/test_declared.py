"""Declarations of users: what they become, and a line for each thing that is wrong."""

from __future__ import annotations

import json
import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Numeric
from support.own_datasets import FUNDING, FUNDING_2, datasets, funding

from market_data_store.datasets import ENQUEUED_AT
from market_data_store.datasets.declared import MAX_COLUMNS, MAX_DATASETS
from market_data_store.datasets.declaring import IDENTIFIER
from market_data_store.errors import ConfigurationError
from market_data_store.postgres.declared_tables import creation

#: The columns that each dataset needs.
NEEDED = {"provider": "text", "ts": "timestamptz"}


def text(name: str = "funding", **changes: Any) -> str:
    """A declaration as TOML; what is changed is given as Python has it."""
    table = {"key": ["provider", "ts"], "columns": {}, **changes}
    columns = {**NEEDED, **table.pop("columns")}
    lines = [f"{key} = {toml(value)}" for key, value in table.items()]
    return "\n".join([f"[{name}]", *lines, f"[{name}.columns]", *(f"{k} = {toml(v)}" for k, v in columns.items())])


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def problems(*texts: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        datasets(*texts)
    return str(caught.value).splitlines()


def test_a_declaration_becomes_a_dataset_whose_key_comes_first() -> None:
    dataset = funding()
    assert (dataset.name, dataset.table.name) == ("funding", "funding_rates")
    assert dataset.key == ("provider", "symbol", "ts", "level")
    assert [column.name for column in dataset.columns][:4] == [*dataset.key]
    assert {*dataset.values} >= {"rate", "bids", "raw", "order", "metadata"}
    level = dataset.table.columns["level"].type
    assert isinstance(level, Numeric)
    assert (level.precision, level.scale) == (20, 4)
    assert not dataset.table.columns["rate"].nullable
    assert not dataset.table.columns[ENQUEUED_AT].nullable
    assert all(dataset.table.columns[name].nullable for name in dataset.values if name != "rate")
    assert dataset.table.columns["rate"].info["rule"].aliases == ("fundingRate",)


def test_the_table_is_called_as_the_dataset_where_it_is_not_named() -> None:
    assert datasets(text("book"))["book"].table.name == "book"


@pytest.mark.parametrize(
    ("declaration", "line"),
    [
        ("x =", "1.toml: not TOML: "),
        ("x = 1", "1.toml: x = 1 is not a dataset; write a table, which begins [x]"),
        ('["Robert\'); DROP TABLE bars"]', '1.toml: "Robert\'); DROP TABLE bars" is not a name of a dataset: a name '),
        (text("bars"), "1.toml: [bars] is the name of a built-in dataset; choose another name"),
        (text("dead_letters", table="x"), "1.toml: [dead_letters] is a name that the store uses itself; "),
        (text(table="bars_ohlcv"), "1.toml: [funding] table: 'bars_ohlcv' is the table of the built-in dataset bars; "),
        (text(table="job_runs"), "1.toml: [funding] table: 'job_runs' is a table that others use; "),
        (text(table="pg_class"), "1.toml: [funding] table: 'pg_class' is a table that others use; "),
        (text(table='a"; DROP TABLE x; --'), "1.toml: [funding] table: 'a\"; DROP TABLE x; --' is not a name: "),
        (text(table="Ticks"), "1.toml: [funding] table: 'Ticks' is not a name: a name begins with a lower-case letter"),
        (text(table="a" * 64), "1.toml: [funding] table: 'aaaaaaaa"),
        (
            text(unheard=1),
            "1.toml: [funding] unheard: is not known; use one of table, key, unknown, partition, columns",
        ),
        (text(unknown="drop"), "1.toml: [funding] unknown: 'drop': input should be 'keep', 'reject' or 'add'"),
        ("[funding]", "1.toml: [funding] key: is missing; every dataset has it"),
        (text(key="ts"), "1.toml: [funding] key: 'ts': input should be a valid list"),
        (text(key=["provider", "ts", "x"]), "1.toml: [funding] key: 'x' is not one of the columns; add it to columns "),
        (text(key=["provider"]), "1.toml: [funding] key: needs the column ts of the kind timestamptz: "),
        (text(key=["ts"]), "1.toml: [funding] key: needs the column provider of the kind text: "),
        (text(key=["ts", "provider"]), "1.toml: [funding] key: provider must stand before ts, "),
        (text(key=["provider", "ts", "ts"]), "1.toml: [funding] key: names a column twice; name each once"),
        (text(columns={"ts": "date"}), "1.toml: [funding] key: needs the column ts of the kind timestamptz: "),
        (
            text(columns={"x": "varchar"}),
            "1.toml: [funding] columns.x: kind: 'varchar' is not a kind; use one of text, ",
        ),
        (text(columns={"x": 3}), "1.toml: [funding] columns.x: 3: input should be a valid dictionary"),
        (
            text(columns={"x": {"kind": "text", "size": 3}}),
            "1.toml: [funding] columns.x.size: is not known; use one of ",
        ),
        (text(columns={"x": {}}), "1.toml: [funding] columns.x.kind: is missing; every column has it"),
        (
            text(columns={"x": {"kind": "text", "required": 1}}),
            "1.toml: [funding] columns.x.required: 1: input should be",
        ),
        (text(columns={"x": "numeric"}), "1.toml: [funding] columns.x: kind: 'numeric' is not a kind; use one of "),
        (text(columns={"x": "numeric(39,2)"}), "1.toml: [funding] columns.x: kind: 'numeric(39,2)': the precision is "),
        (text(columns={"x": "numeric(4,5)"}), "1.toml: [funding] columns.x: kind: 'numeric(4,5)': the precision is "),
        (text(columns={"enqueued_at": "text"}), "1.toml: [funding] columns.enqueued_at: is a name that the store or "),
        (text(columns={"xmin": "text"}), "1.toml: [funding] columns.xmin: is a name that the store or Postgres uses "),
        (text(columns={"ts_nanos": "bigint"}), "1.toml: [funding] columns.ts_nanos: is the name under which metadata "),
        (
            text(columns={"x": "text", "y": {"kind": "text", "aliases": ["x"]}}),
            "1.toml: [funding] columns.y: aliases: 'x' is a name of columns.x; remove one of them",
        ),
        (
            text(columns={"y": {"kind": "text", "aliases": ["enqueued_at"]}}),
            "1.toml: [funding] columns.y: aliases: 'enqueued_at' is a name of the store; remove one of them",
        ),
        (
            text(columns={"y": {"kind": "text", "aliases": ["a\nb"]}}),
            "1.toml: [funding] columns.y: aliases: 'a\\nb' is not a name that rows could have; mend or remove it",
        ),
        (
            text(key=["provider", "ts", "x"], columns={"x": "jsonb"}),
            "1.toml: [funding] key: x is jsonb, which no key can have; remove it from the key",
        ),
        (
            text(key=["provider", "first", "ts"], columns={"first": "text"}),
            "1.toml: [funding] key: 'first' is a name that no column of a key can have; choose another name",
        ),
        (
            text(key=["provider", "ts", *"abcdef"], columns=dict.fromkeys("abcdef", "text")),
            "1.toml: [funding] key: its longest values take 3,664 bytes, an entry of an index at most 2,704; ",
        ),
        (
            text(columns={"x": {"kind": "text", "content_hash": ["provider"]}}),
            "1.toml: [funding] columns.x: content_hash: only a column of the key, of the kind bigint or text, can be ",
        ),
        (
            text(key=["provider", "ts", "x"], columns={"x": {"kind": "bigint", "content_hash": ["y"]}}),
            "1.toml: [funding] columns.x: content_hash: 'y' is not a column outside of the key that a hash can cover",
        ),
        (
            text(columns={f"c{number}": "double" for number in range(2_000)}),
            f"1.toml: [funding] columns: 2,002 of them, at most {MAX_COLUMNS}; use jsonb",
        ),
    ],
)
def test_what_is_wrong_is_a_line_that_names_file_dataset_and_field(declaration: str, line: str) -> None:
    assert any(each.startswith(line) for each in problems(declaration)), problems(declaration)


def test_each_thing_that_is_wrong_has_its_line() -> None:
    lines = problems(text(key=["provider", "ts", "x"], columns={"a": "b", "c": "d"}))
    assert len(lines) == 3


def test_two_datasets_of_one_name_or_table_are_refused() -> None:
    assert problems(text(), text()) == [
        "2.toml: [funding] 1.toml declares this dataset, too; rename or remove one of them"
    ]
    (line,) = problems(text(table="x"), text("other", table="x"))
    assert line == "2.toml: [other] table: 'x' is the table of [funding] in 1.toml; choose another name"


def test_there_are_not_too_many_datasets() -> None:
    every = [text(f"d{number}") for number in range(MAX_DATASETS + 1)]
    assert len(datasets(*every[1:])) == MAX_DATASETS
    assert problems(*every) == [f"{len(every)}.toml: {len(every)} datasets are declared, at most {MAX_DATASETS}"]


def test_a_line_of_a_long_name_is_short() -> None:
    (line,) = problems(f'["{"x" * 100_000}"]')
    assert len(line) < 300


_WORDS = st.sampled_from(
    ["provider", "ts", "x", "y", "text", "jsonb", "numeric(3,1)", "bars", 'a"; DROP', "", "*", "é\n"]
)
_NAMES = _WORDS | st.text(string.printable, max_size=12)
_COLUMNS = st.dictionaries(
    _NAMES,
    _NAMES
    | st.fixed_dictionaries(
        {"kind": _NAMES},
        optional={"aliases": st.lists(_NAMES, max_size=3), "content_hash": st.lists(_NAMES, max_size=3)},
    ),
    max_size=4,
)
_DECLARATIONS = st.dictionaries(
    _NAMES,
    st.fixed_dictionaries({"key": st.lists(_NAMES, max_size=4), "columns": _COLUMNS}, optional={"table": _NAMES}),
    max_size=2,
)


def quoted(document: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(name)} = {toml(table)}" for name, table in document.items())


@given(st.text() | _DECLARATIONS.map(quoted))
def test_whatever_is_declared_no_crash_and_no_sql_in_an_identifier(declaration: str) -> None:
    lines: list[str] = []
    found = {}
    try:
        found = datasets(declaration)
    except ConfigurationError as error:
        lines = str(error).split("\n")
    assert all(line.startswith("1.toml: ") for line in lines)
    for name, dataset in found.items():
        names = [name, dataset.table.name, *dataset.table.columns.keys()]
        assert all(map(IDENTIFIER.fullmatch, names))
        bare = re.sub(r'"[a-z0-9_C]+"', "", creation(dataset).statement.as_string(None))
        assert re.fullmatch(r"CREATE TABLE  \([A-Za-z0-9 ,()\[\]]*\)", bare), bare


@pytest.mark.parametrize("declaration", [FUNDING, FUNDING_2])
def test_the_examples_of_other_tests_are_right(declaration: str) -> None:
    assert funding(declaration)
