"""Makes datasets of the declarations of users, which are TOML; docs/own-datasets.md has the form.

What is wrong raises `ConfigurationError` with a line for each thing: file, dataset, field, value, and what to do. A
declaration becomes a `Dataset` like the built-in ones, whose names of tables and columns are plain identifiers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Column, DateTime, MetaData, Table, Text

from market_data_store.config.declarations import Declaration
from market_data_store.datasets.catalogue import BUILT_IN
from market_data_store.datasets.declaration import (
    ENQUEUED_AT,
    MAX_KEY_LENGTH,
    Dataset,
    Rule,
    metadata_column,
)
from market_data_store.datasets.declaring import (
    IDENTIFIER,
    IDENTIFIER_RULE,
    MAX_ALIAS_LENGTH,
    RESERVED_COLUMNS,
    RESERVED_DATASETS,
    RESERVED_IN_KEYS,
    RESERVED_TABLES,
    ColumnSpec,
    DatasetSpec,
)
from market_data_store.datasets.kinds import NOT_HASHED, NOT_IN_KEYS, type_of
from market_data_store.errors import ConfigurationError

#: The most datasets of all declarations, and columns of each: metrics, pages and statements name all of them.
MAX_DATASETS = 100
MAX_COLUMNS = 200
#: The bytes that an entry of a btree takes at most, and what a key takes beside its texts.
_MAX_KEY_BYTES = 2_704
_BYTES_OF_TEXT = 4 * MAX_KEY_LENGTH + 8
_BYTES_OF_OTHER = 24
#: Where a dataset's data come from, and when: the store finds series, windows and what is old by these two.
_PROVIDER, _TIME = ("provider", "text"), ("ts", "timestamptz")
_MOST_SHOWN = 80


def declared(declarations: Sequence[Declaration]) -> Mapping[str, Dataset]:
    """Return the datasets of all declarations, by name; raises `ConfigurationError`."""
    wrong: list[str] = []
    found: dict[str, Dataset] = {}
    origins: dict[str, str] = {}
    tables = {dataset.table.name: f"the built-in dataset {name}" for name, dataset in BUILT_IN.items()}
    for origin, text in declarations:
        for name, spec in _specs(origin, text, wrong):
            where = f"{origin}: [{name}]"
            problems = [*_problems(name, spec)]
            table = spec.table or name
            if name in origins:
                problems.append(f"{origins[name]} declares this dataset, too; rename or remove one of them")
            elif table in tables:
                problems.append(f"table: {table!r} is the table of {tables[table]}; choose another name")
            wrong += [f"{where} {problem}" for problem in problems]
            origins.setdefault(name, origin)
            tables.setdefault(table, f"[{name}] in {origin}")
            if not problems:
                found[name] = _dataset(name, spec)
    if len(origins) > MAX_DATASETS:
        wrong.append(f"{declarations[-1].origin}: {len(origins)} datasets are declared, at most {MAX_DATASETS}")
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return found


def _specs(origin: str, text: str, wrong: list[str]) -> Iterator[tuple[str, DatasetSpec]]:
    """Yield the datasets that have the form of one; lines about the others are added to `wrong`."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        wrong.append(f"{origin}: not TOML: {error}"[:400])
        return
    for name, table in document.items():
        if not IDENTIFIER.fullmatch(name):
            wrong.append(f"{origin}: {_shown(name)} is not a name of a dataset: {IDENTIFIER_RULE}")
            continue
        if not isinstance(table, dict):
            wrong.append(f"{origin}: {name} = {_shown(table)} is not a dataset; write a table, which begins [{name}]")
            continue
        columns = table.get("columns")
        if isinstance(columns, dict) and len(columns) > MAX_COLUMNS:
            wrong.append(f"{origin}: [{name}] columns: {len(columns):,} of them, at most {MAX_COLUMNS}; use jsonb")
            continue
        try:
            yield name, DatasetSpec.model_validate(table)
        except ValidationError as error:
            wrong += [f"{origin}: [{name}] {_said(each)}" for each in error.errors(include_url=False)]


def _said(error: Any) -> str:
    """Return what pydantic finds wrong, as one line."""
    place = ".".join(str(step) for step in error["loc"] if not str(step).startswith("function-"))
    parent = DatasetSpec if len(error["loc"]) == 1 else ColumnSpec
    match error["type"]:
        case "extra_forbidden":
            return f"{_cut(place)}: is not known; use one of {', '.join(parent.model_fields)}"
        case "missing":
            return f"{_cut(place)}: is missing; every {'dataset' if parent is DatasetSpec else 'column'} has it"
    reason = str(error["msg"])
    return f"{_cut(place)}: {_shown(error['input'])}: {reason[:1].lower()}{reason[1:]}"


def _problems(name: str, spec: DatasetSpec) -> Iterator[str]:
    """Yield a line for each thing that makes no sense."""
    if name in BUILT_IN:
        yield "is the name of a built-in dataset; choose another name"
    if name in RESERVED_DATASETS:
        yield "is a name that the store uses itself; choose another name"
    table = spec.table or name
    if not IDENTIFIER.fullmatch(table):
        yield f"table: {_shown(table)} is not a name: {IDENTIFIER_RULE}"
    elif table in RESERVED_TABLES or table.startswith("pg_"):
        yield f"table: {table!r} is a table that others use; choose another name"
    for column, each in spec.columns.items():
        yield from (f"columns.{_cut(column)}: {problem}" for problem in _problems_of_column(column, each, spec))
    yield from _problems_of_key(spec)
    yield from _clashes(spec)


def _problems_of_column(name: str, spec: ColumnSpec, dataset: DatasetSpec) -> Iterator[str]:
    if not IDENTIFIER.fullmatch(name):
        yield f"is not a name: {IDENTIFIER_RULE}"
    if name in RESERVED_COLUMNS:
        yield "is a name that the store or Postgres uses in each table; choose another name"
    time = name.removesuffix("_nanos")
    if time != name and time in dataset.columns and dataset.columns[time].kind == _TIME[1]:
        yield f"is the name under which metadata has the nanoseconds of {time}; choose another name"
    try:
        type_of(spec.kind)
    except ValueError as error:
        yield f"kind: {error}"
    for alias in spec.aliases:
        if not alias.strip() or alias != alias.strip() or not alias.isprintable() or len(alias) > MAX_ALIAS_LENGTH:
            yield f"aliases: {_shown(alias)} is not a name that rows could have; mend or remove it"
    if spec.content_hash:
        yield from (f"content_hash: {problem}" for problem in _problems_of_hash(name, spec, dataset))


def _problems_of_hash(name: str, spec: ColumnSpec, dataset: DatasetSpec) -> Iterator[str]:
    if name not in dataset.key or spec.kind not in ("bigint", "text"):
        yield "only a column of the key, of the kind bigint or text, can be made of a hash; remove it"
    if spec.kind == "text" and "*" in spec.content_hash:
        yield "'*' needs a column of the kind bigint; change the kind or remove it"
    if [each for other, each in dataset.columns.items() if each.content_hash and other != name]:
        yield "only one column can be made of a hash; remove the others"
    for other in spec.content_hash:
        if other == "*":
            continue
        if other not in dataset.columns or other in dataset.key or dataset.columns[other].kind in NOT_HASHED:
            yield f"{_shown(other)} is not a column outside of the key that a hash can cover (no time, no date)"


def _problems_of_key(spec: DatasetSpec) -> Iterator[str]:
    if len(set(spec.key)) < len(spec.key):
        yield "key: names a column twice; name each once"
    unknown = [name for name in spec.key if name not in spec.columns]
    for name in unknown:
        yield f"key: {_shown(name)} is not one of the columns; add it to columns or remove it"
    for name, kind in (_PROVIDER, _TIME):
        if name not in spec.key or (name in spec.columns and spec.columns[name].kind != kind):
            yield f"key: needs the column {name} of the kind {kind}: the store finds rows by it; add it"
    if set(spec.key) >= {"provider", "ts"} and spec.key.index("provider") > spec.key.index("ts"):
        yield "key: provider must stand before ts, so that the key's index finds the series; change their order"
    for name in set(spec.key) - set(unknown):
        if spec.columns[name].kind in NOT_IN_KEYS:
            yield f"key: {name} is {spec.columns[name].kind}, which no key can have; remove it from the key"
        if name in RESERVED_IN_KEYS:
            yield f"key: {name!r} is a name that no column of a key can have; choose another name"
    texts = sum(spec.columns[name].kind == "text" for name in set(spec.key) - set(unknown))
    size = texts * _BYTES_OF_TEXT + (len(spec.key) - texts) * _BYTES_OF_OTHER
    if size > _MAX_KEY_BYTES:
        yield (
            f"key: its longest values take {size:,} bytes, an entry of an index at most {_MAX_KEY_BYTES:,}; use fewer "
            "columns of texts"
        )


def _clashes(spec: DatasetSpec) -> Iterator[str]:
    owners = dict.fromkeys((ENQUEUED_AT, "metadata", "time_unit"), "the store")
    owners |= {name: f"columns.{_cut(name)}" for name in spec.columns}
    for name, column in spec.columns.items():
        for alias in column.aliases:
            if alias in owners:
                yield f"columns.{_cut(name)}: aliases: {_shown(alias)} is a name of {owners[alias]}; remove one of them"
            owners.setdefault(alias, f"columns.{_cut(name)}")


def _dataset(name: str, spec: DatasetSpec) -> Dataset:
    """Return the dataset, whose key's columns come first."""
    order = [*spec.key, *(other for other in spec.columns if other not in spec.key)]
    columns = [_column(column, spec.columns[column], is_key=column in spec.key) for column in order]
    moment = Column(ENQUEUED_AT, DateTime(timezone=True), nullable=False)
    table = Table(spec.table or name, MetaData(), *columns, metadata_column(), moment)
    return Dataset(name, table, unknown=spec.unknown, partition=spec.partition)


def _column(name: str, spec: ColumnSpec, *, is_key: bool) -> Column[Any]:
    type_ = type_of(spec.kind)
    is_text = isinstance(type_, Text)
    rule = Rule(
        aliases=tuple(spec.aliases),
        trimmed=is_key and is_text,
        numbered=is_text,
        content_hash=tuple(spec.content_hash),
    )
    nullable = not (is_key or spec.required)
    return Column(name, type_, primary_key=is_key, nullable=nullable, autoincrement=False, info={"rule": rule})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _cut(name: str) -> str:
    """Return a name as a line has it: a foreign one may be of any length, and hold line breaks."""
    return name if name.isprintable() and len(name) <= _MOST_SHOWN else _shown(name)
