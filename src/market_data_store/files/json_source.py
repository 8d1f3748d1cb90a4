"""JSON as a table: only what feeds a field becomes a column, the rest of a record is kept as it is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import duckdb
import msgspec
import pyarrow as pa

from market_data_store.files.json_records import JsonRecord, at_path, read_records, text_of
from market_data_store.files.opening import Opened
from market_data_store.files.options import Options, Undecided
from market_data_store.files.tables import SAMPLE_ROWS, Named, numbered, parts, registered

_name: Callable[[str], bytes] = msgspec.json.encode


class JsonSource(Named):
    """JSON: only what feeds a field becomes a column, the rest of a record is kept as it is written."""

    comma_is_free = False
    tickers: tuple[str, ...] = ()

    def __init__(self, opened: Opened, options: Options) -> None:
        self.path, self._opened, self._options = opened.path, opened, options
        self._inner = opened.inner
        self._load()

    def _load(self) -> None:
        opened, options = self._opened, self._options
        records = self._records()
        first = list(islice(records, SAMPLE_ROWS))
        self._first = [record for record in first if record.bad is None]
        if not self._first:
            raise Undecided(f"{opened.path}: no record found; give --records PATH, if they are inside of an object")
        # A field may be left out where it has no value, so that it first stands far down in the file.
        keys = dict.fromkeys(name for record in self._first for name in record.tokens)
        for record in records:
            keys.update(dict.fromkeys(record.tokens))
        self._keys = list(keys)
        self.has_header = not self._keys[0].startswith("#")
        self.unit = "line" if first[-1].number > len(first) or not options.records else "row"
        self._update()

    def _update(self) -> None:
        self.names = tuple(name if self.has_header else "" for name in self._keys)
        self.types = ("VARCHAR",) * len(self._keys)
        self.sample = tuple(tuple(_cell(record, key) for key in self._keys) for record in self._first)

    def column(self, name: str) -> int | None:
        """Return the place of the column with this name."""
        if name not in self._keys:
            if all(at_path(record.tokens, name) is None for record in self._first):
                return None
            self._keys.append(name)
            self._update()
        return self._keys.index(name)

    def rename(self, names: Sequence[str]) -> None:
        """Give the columns these names."""
        self._options = replace(self._options, names=tuple(names))
        self._load()

    def kept(self, columns: Sequence[tuple[str, int]]) -> str:
        """Return the SQL of what is kept of a row."""
        return "kept"

    def read_carefully(self) -> bool:
        """Read line by line from now on; False if that makes no difference."""
        return False

    @contextmanager
    def table(self, connection: duckdb.DuckDBPyConnection, kept: Sequence[int]) -> Iterator[str]:
        """Open the file as a table."""
        names = [(f"c{at}", pa.string()) for at in range(len(self._keys))]
        schema = pa.schema([*names, ("kept", pa.string()), ("bad", pa.string())])
        dropped = {key for at, key in enumerate(self._keys) if at not in set(kept)}
        yield from registered(connection, schema, self._batches(schema, dropped))

    def _records(self) -> Iterator[JsonRecord]:
        return read_records(self._opened, self._options.records, self._options.names)

    def _batches(self, schema: pa.Schema, dropped: set[str]) -> Iterator[pa.RecordBatch]:
        for part in parts(self._records()):
            columns = [pa.array([_cell(record, key) for record in part], pa.string()) for key in self._keys]
            kept = pa.array([_kept_text(record, dropped) for record in part], pa.string())
            bad = pa.array([None if r.bad is None else json.dumps(r.bad) for r in part], pa.string())
            yield pa.RecordBatch.from_arrays([*columns, kept, bad], schema=schema)

    def numbers(self, rows: Sequence[int]) -> dict[int, int]:
        """Return the numbers in the file of rows."""
        return numbered(rows, (record.number for record in self._records()))


def _cell(record: JsonRecord, key: str) -> str | None:
    return text_of(at_path(record.tokens, key))


def _kept_text(record: JsonRecord, dropped: set[str]) -> str | None:
    kept = [
        _name(name) + b":" + bytes(token)
        for name, token in record.tokens.items()
        if name not in dropped and bytes(token) not in (b"null", b"NaN", b"Infinity", b"-Infinity")
    ]
    return (b"{" + b",".join(kept) + b"}").decode() if kept else None
