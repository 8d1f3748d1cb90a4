"""Archives a partition as a Parquet file that `mds load` reads back, and does not trust the file until it has read it.

The file has the dataset's columns, as an export has them, in the order of the key. It is written under another name,
and forced to the disk; then it is read from there, and must have the values that were written and as many rows as the
table. Only then it gets its name. A file that is there is never replaced: other rows of the same time get a name with a
number.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from market_data_store.datasets import Dataset
from market_data_store.errors import ArchiveFailed
from market_data_store.files.digests import Digest
from market_data_store.files.parquet_writer import write_parquet
from market_data_store.reads.tables import batches

logger = logging.getLogger(__name__)

#: Rows that are read back at once.
_ROWS = 65_536
#: More archives of one time than anybody makes.
_MOST_FILES = 1_000

#: As `postgres.leaving.Archive`.
Archive = Callable[[psycopg.Connection[Any], Dataset, int], None]


def archiver(directory: str) -> Archive | None:
    """Return what archives into this directory; None for no directory."""
    if not directory:
        return None

    def archive(connection: psycopg.Connection[Any], partition: Dataset, rows: int) -> None:
        path = archived(connection, partition, rows, Path(directory))
        logger.info("%s: archived %s rows of %s in %s", partition.name, f"{rows:,}", partition.table.name, path)

    return archive


def archived(connection: psycopg.Connection[Any], partition: Dataset, rows: int, directory: Path) -> Path:
    """Write the rows of a partition's table, which are so many, to `DIRECTORY/DATASET/TABLE.parquet`; returns the path.

    An archive of the same rows that is there is kept. Raises `ArchiveFailed` if the file cannot be written, or is not
    what the table has; then no file has that name. Raises `DatabaseUnavailable`.
    """
    folder = directory / partition.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _part(folder / f"{partition.table.name}.parquet") as part:
            written = _write(connection, partition, part)
            verify(part, written.text, rows)
            return _named(part, folder, partition.table.name, written.text)
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ArchiveFailed(
            f"{partition.table.name}: cannot be archived in {folder}: {reason}; nothing is dropped"
        ) from error


def verify(path: Path, digest: str, rows: int) -> None:
    """Read a file back; raises `ArchiveFailed` unless it has this digest and this number of rows."""
    try:
        found = digest_of(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise ArchiveFailed(f"{path}: cannot be read back: {reason}; nothing is dropped") from error
    if found.rows != rows:
        raise ArchiveFailed(f"{path}: has {found.rows:,} rows, the table {rows:,}; nothing is dropped")
    if found.text != digest:
        raise ArchiveFailed(f"{path}: has other values than the table; nothing is dropped")


def digest_of(path: Path) -> Digest:
    """Return the digest of a Parquet file's rows; raises Arrow's errors and `OSError`."""
    digest = Digest()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            digest.add(batch)
    return digest


def _write(connection: psycopg.Connection[Any], partition: Dataset, part: Path) -> Digest:
    digest = Digest()
    with part.open("xb") as stream:
        with batches(connection, partition, {}, order=partition.key) as found:
            write_parquet(found.schema, digest.taking(found.rows), stream, lambda rows: None)
        stream.flush()
        os.fsync(stream.fileno())
        # So that it is read back from the disk.
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest


def _named(part: Path, folder: Path, name: str, digest: str) -> Path:
    """Give the file its name, unless there is one with the same rows; returns the path."""
    for number in range(1, _MOST_FILES):
        path = folder / (f"{name}.parquet" if number == 1 else f"{name}_{number}.parquet")
        try:
            os.link(part, path)  # unlike a rename, it replaces nothing
        except FileExistsError:
            if _is_same(path, digest):
                return path
            continue
        _sync(folder)
        return path
    raise ArchiveFailed(f"{folder}: has {_MOST_FILES:,} archives of {name}; move them away")


def _is_same(path: Path, digest: str) -> bool:
    try:
        return digest_of(path).text == digest
    except (OSError, pa.ArrowException):  # whoever put it there may have use for it
        return False


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
