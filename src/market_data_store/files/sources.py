"""Opens a file as a table, whatever its format: judged by its first bytes, not by its name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from market_data_store.errors import InvalidMessage
from market_data_store.files.delimited import CsvSource
from market_data_store.files.dialect import detect
from market_data_store.files.json_records import looks_like_json
from market_data_store.files.json_source import JsonSource
from market_data_store.files.opening import open_file
from market_data_store.files.options import Options
from market_data_store.files.parquet import ParquetSource
from market_data_store.files.tables import Source

__all__ = ["Source", "open_source"]


def open_source(path: Path, options: Options) -> Source:
    """Open a file; raises `InvalidMessage`, `Damaged` or `Undecided`."""
    if path.suffix == ".part":
        raise InvalidMessage(f"{path}: the unfinished file of an export; give the file that has its name without .part")
    with suppress(OSError), path.open("rb") as raw:
        if raw.read(4) == b"PAR1":
            return ParquetSource(path)
    opened = open_file(path, options.encoding)
    if options.records is not None or (options.delimiter is None and looks_like_json(opened.sample)):
        return JsonSource(opened, options)
    return CsvSource(opened, detect(opened, options))
