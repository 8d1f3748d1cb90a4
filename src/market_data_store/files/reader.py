"""Reads rows from CSV and NDJSON files, plain or gzipped.

An empty field of a CSV is null, because the store accepts no empty texts. A JSON column's field in a CSV holds JSON.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage
from market_data_store.wire.fields import fields_of
from market_data_store.wire.text import json_cell, python_value

#: An object's values stay as they are written: 1e400 is not Infinity.
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def format_of(path: Path) -> tuple[Literal["csv", "ndjson"], bool]:
    """Return a file's format, judged by its name, and whether it is gzipped; raise `InvalidMessage` for other names."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    gzipped = suffixes[-1:] == [".gz"]
    match suffixes[-2:-1] if gzipped else suffixes[-1:]:
        case [".csv"]:
            return "csv", gzipped
        case [".ndjson" | ".jsonl"]:
            return "ndjson", gzipped
    raise InvalidMessage(f"{path}: unknown format; name it .csv, .ndjson or .jsonl, plus .gz if it is gzipped")


@dataclass(slots=True)
class RowFile:
    """A file of rows, read once from start to end in constant memory.

    `columns` maps fields of the dataset to columns of the file. Raises `InvalidMessage` if the file, its format or a
    column is wrong. A line that cannot be read becomes a row that the worker rejects, so it leaves a dead letter.
    """

    path: Path
    dataset: Dataset
    columns: Mapping[str, str] = field(default_factory=dict)
    _raw: IO[bytes] | None = None

    @property
    def size(self) -> int:
        """Size on disk, in bytes."""
        return self.path.stat().st_size

    @property
    def position(self) -> int:
        """Bytes read so far, of `size`."""
        return self._raw.tell() if self._raw and not self._raw.closed else 0

    def rows(self) -> Iterator[Any]:
        """Yield the rows in the order of the file."""
        known = {name for f in fields_of(self.dataset) for name in f.names}
        for name in self.columns:
            if name not in known:
                fields = ", ".join(c.name for c in self.dataset.columns)
                raise InvalidMessage(f"--map {name}: {self.dataset.name} has no such field; use one of {fields}")
        format_, gzipped = format_of(self.path)
        read = self._csv if format_ == "csv" else self._ndjson
        try:
            with ExitStack() as stack:
                self._raw = stack.enter_context(self.path.open("rb"))
                stream = stack.enter_context(gzip.open(self._raw)) if gzipped else self._raw
                text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
                yield from read(stack.enter_context(text))
        except (OSError, EOFError) as error:
            raise InvalidMessage(
                f"{self.path}: {error.strerror if isinstance(error, OSError) and error.strerror else error}"
            ) from error

    def _csv(self, text: IO[str]) -> Iterator[Any]:
        lines = csv.reader(text)
        header = next(lines, None)
        if header is None:
            return
        names = [name.strip() for name in header]
        for name, column in self.columns.items():
            if column not in names:
                raise InvalidMessage(
                    f"--map {name}={column}: {self.path} has no such column; it has {', '.join(names)}"
                )
        renamed = {column: name for name, column in self.columns.items()}
        names = [renamed.get(name, name) for name in names]
        kinds = {f.name: f.kind for f in fields_of(self.dataset) if f.name in names}
        readers = {name: kind.from_csv for name, kind in kinds.items() if kind.from_csv is not None}
        try:
            for values in lines:
                if len(values) == len(names):
                    # None instead of no field: rows of one shape are decoded together, see `wire.rows`.
                    row: dict[str, Any] = {name: value or None for name, value in zip(names, values, strict=True)}
                    for name, read in readers.items():
                        row[name] = row[name] and read(row[name])
                    yield row
                elif values:
                    yield values  # too few or too many fields: a list is not a row, so it is rejected
        except csv.Error as error:
            raise InvalidMessage(f"{self.path}, line {lines.line_num}: {error}") from error

    def _ndjson(self, text: IO[str]) -> Iterator[Any]:
        for line in text:
            if line.strip():
                yield self._renamed(line) if self.columns else json_cell(line)

    def _renamed(self, line: str) -> msgspec.Raw:
        try:
            return msgspec.Raw(msgspec.json.encode(self._with_names(_FIELDS.decode(line))))
        except ValueError:  # not an object, or JSON as Python has it: NaN
            row = python_value(line)
            return msgspec.Raw(json.dumps(self._with_names(row) if isinstance(row, dict) else row).encode())

    def _with_names(self, row: dict[str, Any]) -> dict[str, Any]:
        for name, column in self.columns.items():
            if column in row:
                row[name] = row.pop(column)
        return row
