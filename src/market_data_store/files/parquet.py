"""A Parquet file as a table, whose columns have types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from market_data_store.errors import InvalidMessage
from market_data_store.files.tables import BATCH_ROWS, SAMPLE_ROWS, Named, Row, literal, quoted, registered


class ParquetSource(Named):
    """A Parquet file: its columns have types."""

    unit = "row"
    has_header = True
    comma_is_free = False
    tickers: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        connection = duckdb.connect(":memory:", config={"threads": "1"})
        connection.execute("SET TimeZone = 'UTC'")
        try:
            found = connection.sql(f"DESCRIBE SELECT * FROM read_parquet({literal(str(path))})").fetchall()
            self._columns = [str(name) for name, *_ in found]
            self.types = tuple(str(type_) for _, type_, *_ in found)
            texts = ", ".join(f"{quoted(name)}::VARCHAR" for name in self._columns)
            sample = f"SELECT {texts} FROM read_parquet({literal(str(path))}) LIMIT {SAMPLE_ROWS}"
            self.sample: tuple[Row, ...] = tuple(connection.sql(sample).fetchall())
        except duckdb.Error as error:
            raise InvalidMessage(f"{path}: {str(error).splitlines()[0]}") from error
        finally:
            connection.close()
        schema = pq.read_schema(path)
        #: Times with nanoseconds and a zone, of which DuckDB keeps the microseconds.
        self._fine = {field.name for field in schema if str(field.type).startswith("timestamp[ns, tz=")}
        self.types = tuple(
            "TIMESTAMP_NS WITH TIME ZONE" if name in self._fine else type_
            for name, type_ in zip(self._columns, self.types, strict=True)
        )
        self.names = tuple("" if name.startswith("__index_level_") else name for name in self._columns)

    def column(self, name: str) -> int | None:
        """Return the place of the column with this name."""
        return self.names.index(name) if name in self.names else None

    def rename(self, names: Sequence[str]) -> None:
        """Give the columns these names."""
        self.names = tuple(names)

    def kept(self, columns: Sequence[tuple[str, int]]) -> str:
        """Return the SQL of what is kept of a row."""
        fields = ", ".join(f"{quoted(name)} := c{at}" for name, at in columns)
        return f"json_merge_patch('{{}}', to_json(struct_pack({fields})))::VARCHAR"

    def read_carefully(self) -> bool:
        """Read line by line from now on; False if that makes no difference."""
        return False

    @contextmanager
    def table(self, connection: duckdb.DuckDBPyConnection, kept: Sequence[int]) -> Iterator[str]:
        """Open the file as a table."""
        columns = ", ".join(f"{quoted(name)} AS c{at}" for at, name in enumerate(self._columns))
        if self._fine:
            for table in registered(connection, self._plain(pq.read_schema(self.path)), self._batches()):
                yield f"(SELECT {columns}, NULL::VARCHAR AS bad FROM {table})"
            return
        yield f"(SELECT {columns}, NULL::VARCHAR AS bad FROM read_parquet({literal(str(self.path))}))"

    def _plain(self, schema: pa.Schema) -> pa.Schema:
        for at, field in enumerate(schema):
            if field.name in self._fine:
                schema = schema.set(at, pa.field(field.name, pa.timestamp("ns")))
        return schema.remove_metadata()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            schema = self._plain(file.schema_arrow)
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                columns = [
                    column.cast(pa.int64()).cast(pa.timestamp("ns")) if field.name in self._fine else column
                    for field, column in zip(schema, batch.columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def numbers(self, rows: Sequence[int]) -> dict[int, int]:
        """Return the numbers in the file of rows."""
        return {row: row + 1 for row in rows}
