"""The formats that an export writes, and which of them a file has."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from market_data_store.errors import InvalidMessage

#: The path that means standard output, which gets NDJSON unless another format is given.
STDOUT = Path("-")
#: The names of the formats, by suffix.
_SUFFIXES = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
FORMATS = ("csv", "ndjson", "parquet")


class WrittenFormat(NamedTuple):
    """A format of `FORMATS`, and whether it is compressed by gzip."""

    name: str
    gzipped: bool


def written_format(file: Path, name: str | None = None) -> WrittenFormat:
    """Return the format with this name, or that of the file's suffix; raises `InvalidMessage` for other names."""
    if file == STDOUT:
        return WrittenFormat(name or "ndjson", gzipped=False)
    suffixes = [suffix.lower() for suffix in file.suffixes]
    gzipped = suffixes[-1:] == [".gz"]
    found = name or _SUFFIXES.get("".join(suffixes[-2:-1] if gzipped else suffixes[-1:]))
    if found is None:
        names = ".csv, .ndjson, .jsonl (plus .gz to compress it) or .parquet"
        raise InvalidMessage(f"{file}: unknown format; name it {names}, or give --format")
    if gzipped and found == "parquet":
        raise InvalidMessage(f"{file}: Parquet is compressed already; name it .parquet")
    return WrittenFormat(found, gzipped)
