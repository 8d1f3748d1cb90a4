"""A delimited file as a table: read by DuckDB, or line by line where it has mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

from market_data_store.files.dialect import Dialect
from market_data_store.files.opening import Opened
from market_data_store.files.pipe import Pipe
from market_data_store.files.records import Record, records
from market_data_store.files.tables import Named, Row, kept_object, literal, numbered, parts, registered

#: What DuckDB reads at once: of each thread it holds several.
_BUFFER_BYTES = 4 * 1024 * 1024


class CsvSource(Named):
    """A delimited file: read by DuckDB, or line by line where it has mistakes."""

    unit = "line"

    def __init__(self, opened: Opened, dialect: Dialect) -> None:
        self.path, self._opened, self.dialect = opened.path, opened, dialect
        self._inner = opened.inner
        self.names = dialect.names
        self.sample: tuple[Row, ...] = dialect.sample
        self.types = ("VARCHAR",) * len(dialect.names)
        self.has_header, self.tickers = dialect.has_header, dialect.tickers
        self.comma_is_free = dialect.delimiter != ","
        self._careful = not dialect.delimiter.isascii()

    def column(self, name: str) -> int | None:
        """Return the place of the column with this name."""
        return self.names.index(name) if name in self.names else None

    def rename(self, names: Sequence[str]) -> None:
        """Give the columns these names."""
        self.names = tuple(names)

    def kept(self, columns: Sequence[tuple[str, int]]) -> str:
        """Return the SQL of what is kept of a row."""
        return kept_object(columns)

    def read_carefully(self) -> bool:
        """Read line by line from now on; False if that makes no difference."""
        changed, self._careful = not self._careful, True
        return changed

    @contextmanager
    def table(self, connection: duckdb.DuckDBPyConnection, kept: Sequence[int]) -> Iterator[str]:
        """Open the file as a table."""
        if self._careful:
            yield from registered(connection, self._schema(), self._batches())
        elif self._opened.is_plain and self.path.is_file():
            yield self._read_csv(self.path, self.dialect.skipped_lines)
        else:
            with Pipe(self._opened) as feed:
                yield self._read_csv(feed.path, self.dialect.skipped_lines)
                feed.check()

    def _read_csv(self, path: Path, skip: int) -> str:
        columns = ", ".join(f"'c{at}': 'VARCHAR'" for at in range(len(self.names)))
        return (
            f"(SELECT *, NULL::VARCHAR AS bad FROM read_csv({literal(str(path))}, auto_detect=false, header=false, "
            f"skip={skip}, delim={literal(self.dialect.delimiter)}, quote='\"', escape='\"', "
            f"strict_mode=true, null_padding=false, buffer_size={_BUFFER_BYTES}, columns={{{columns}}}))"
        )

    def _schema(self) -> pa.Schema:
        return pa.schema([(f"c{at}", pa.string()) for at in range(len(self.names))] + [("bad", pa.string())])

    def _records(self) -> Iterator[Record]:
        lines = islice(self._opened.lines(), self.dialect.skipped_lines, None)
        first = self.dialect.skipped_lines + 1
        return records(lines, self.dialect.delimiter, width=len(self.names), first=first)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        empty = (None,) * len(self.names)
        for part in parts(self._records()):
            rows = [empty if record.problem else record.cells for record in part]
            columns = [pa.array([value or None for value in column], pa.string()) for column in zip(*rows, strict=True)]
            bad = [json.dumps(record.cells) if record.problem else None for record in part]
            yield pa.RecordBatch.from_arrays([*columns, pa.array(bad, pa.string())], schema=self._schema())

    def numbers(self, rows: Sequence[int]) -> dict[int, int]:
        """Return the numbers in the file of rows."""
        return numbered(rows, (record.line for record in self._records()))
