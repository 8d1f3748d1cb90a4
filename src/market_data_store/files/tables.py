"""What all sources of rows share: their form, names as SQL has them, and batches that Python makes as tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import duckdb
import pyarrow as pa

T = TypeVar("T")
Row = tuple[str | None, ...]
#: Rows of a batch that Python makes.
BATCH_ROWS = 20_000
#: Rows that are looked at before the whole file is.
SAMPLE_ROWS = 1_000


class Source(Protocol):
    """A file that can be read as a table."""

    path: Path
    #: The name of each column; empty for one without.
    names: tuple[str, ...]
    #: DuckDB's type of each column.
    types: tuple[str, ...]
    #: The first rows.
    sample: tuple[Row, ...]
    has_header: bool
    tickers: tuple[str, ...]
    #: What numbers of rows count: lines or rows.
    unit: str
    #: Whether numbers may have a decimal comma: a comma does not divide the cells.
    comma_is_free: bool

    def column(self, name: str) -> int | None:
        """Return the place of the column with this name; a path into an object becomes a column."""

    def rename(self, names: Sequence[str]) -> None:
        """Give the columns of a file without header these names."""

    @property
    def day(self) -> str | None:
        """The day that stands in the file's name, as 2013-10-07."""

    def kept(self, columns: Sequence[tuple[str, int]]) -> str:
        """Return the SQL of a JSON object of these columns under these names, without those that are null."""

    def table(self, connection: duckdb.DuckDBPyConnection, kept: Sequence[int]) -> Any:
        """Open the file: a context manager of the name of the table, or its SQL."""

    def read_carefully(self) -> bool:
        """Read line by line from now on, as the file has mistakes; False if that is so already."""

    def numbers(self, rows: Sequence[int]) -> dict[int, int]:
        """Return the number in the file, from 1, of rows given by their index, from 0, in ascending order."""


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def kept_object(columns: Sequence[tuple[str, int]]) -> str:
    """Return the SQL of an object of columns, without those that are null."""
    fields = ", ".join(f"{quoted(name)} := nullif(trim(c{at}), '')" for name, at in columns)
    return f"json_merge_patch('{{}}', to_json(struct_pack({fields})))::VARCHAR"


class Named:
    """What the name of a file says."""

    path: Path
    _inner = ""

    @property
    def day(self) -> str | None:
        """The day in the name, as 2013-10-07."""
        for name in (self._inner, self.path.name):
            found = re.search(r"(?<!\d)((?:19|20)\d\d)[-_]?(\d\d)[-_]?(\d\d)(?!\d)", name)
            if found:
                return "-".join(found.groups())
        return None


def registered(
    connection: duckdb.DuckDBPyConnection, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[str]:
    """Let DuckDB read batches as they are made; yields the name of the table. An error in them is raised."""
    name = "made_rows"
    failed: list[Exception] = []
    connection.register(name, pa.RecordBatchReader.from_batches(schema, _watched(batches, failed)))
    try:
        yield name
    except (duckdb.Error, OSError) as error:
        raise (failed[0] if failed else error) from error
    finally:
        connection.unregister(name)
    if failed:
        raise failed[0]


def _watched(batches: Iterable[pa.RecordBatch], failed: list[Exception]) -> Iterator[pa.RecordBatch]:
    """Remember the error that ends the batches: DuckDB makes a text of it."""
    try:
        yield from batches
    except Exception as error:
        failed.append(error)
        raise


def parts(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield the items in lists."""
    iterator = iter(items)
    while part := list(islice(iterator, BATCH_ROWS)):
        yield part


def numbered(rows: Sequence[int], numbers: Iterable[int]) -> dict[int, int]:
    """Return those of the numbers, of which each row has one, that belong to these rows."""
    wanted = set(rows)
    last = max(wanted, default=-1)
    return {row: number for row, number in zip(range(last + 1), numbers, strict=False) if row in wanted}
