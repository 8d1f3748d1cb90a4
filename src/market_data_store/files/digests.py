"""Tells whether two streams of record batches hold the same values in the same order, however they are cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


class Digest:
    """Counts rows, and hashes the values of each column by themselves; nothing of how batches are laid out counts."""

    def __init__(self) -> None:
        self.rows = 0
        self._hashes: dict[str, Any] = {}

    def taking(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches and add each."""
        for batch in batches:
            self.add(batch)
            yield batch

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch; the columns are those of the first."""
        self.rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            self._add(name, column)

    @property
    def text(self) -> str:
        """The digest of all that was added, with the number of rows."""
        whole = sha256(str(self.rows).encode())
        for name in sorted(self._hashes):
            whole.update(name.encode() + b"\0" + self._hashes[name].digest())
        return whole.hexdigest()

    def _add(self, name: str, array: pa.Array) -> None:
        self._update(f"{name}/null", pc.is_null(array).cast(pa.uint8()))
        type_ = array.type
        if pa.types.is_list(type_):
            self._update(f"{name}/length", pc.fill_null(pc.list_value_length(array), 0))
            self._add(f"{name}/item", array.flatten())
        elif pa.types.is_string(type_):
            self._update(f"{name}/length", pc.fill_null(pc.binary_length(array), 0))
            self._update(name, pc.fill_null(array, ""))
        elif pa.types.is_boolean(type_):
            self._update(name, pc.fill_null(array, False).cast(pa.uint8()))
        else:
            nothing = pa.scalar(Decimal(0) if pa.types.is_decimal(type_) else 0, type_)
            self._update(name, pc.fill_null(array, nothing))

    def _update(self, name: str, array: pa.Array) -> None:
        found = self._hashes.setdefault(name, sha256())
        if len(array):
            found.update(_bytes(array))


def _bytes(array: pa.Array) -> memoryview:
    """Return the bytes of an array's values; it has no null."""
    *_, values = array.buffers()
    if values is None:  # of empty texts only
        return memoryview(b"")
    if pa.types.is_string(array.type):
        offsets = memoryview(array.buffers()[1]).cast("i")
        return memoryview(values)[offsets[array.offset] : offsets[array.offset + len(array)]]
    width = array.type.bit_width // 8
    return memoryview(values)[array.offset * width : (array.offset + len(array)) * width]
