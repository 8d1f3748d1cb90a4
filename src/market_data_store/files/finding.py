"""Which files a command line names: paths, globs, directories, and what can be read only once."""

from __future__ import annotations

import glob
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from market_data_store.errors import MarketDataStoreError
from market_data_store.files.options import Undecided
from market_data_store.files.spilling import FULL, full, own_directory

#: How the names of files of rows end; in a directory, others are left out.
SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".ndjson", ".jsonl", ".parquet")
_PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst")
STANDARD_INPUT = "-"


@dataclass(slots=True)
class Found:
    """The files that are meant, in the order of the command line, those of a directory in the order of their names."""

    files: list[Path] = field(default_factory=list)
    #: Files of directories whose names do not say that they hold rows.
    others: list[Path] = field(default_factory=list)
    #: What was copied, as its name and its bytes.
    copied: list[tuple[str, int]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """What is to be said of them."""
        where = tempfile.gettempdir()
        said = [f"{name}: {size:,} bytes are kept in {where} while they are loaded" for name, size in self.copied]
        if self.others:
            names = ", ".join(path.name for path in self.others[:3])
            more = ", ..." if len(self.others) > 3 else ""
            said.append(f"{len(self.others):,} other files are left out: {names}{more}")
        return said


@contextmanager
def found_files(given: Sequence[str], *, recursive: bool) -> Iterator[Found]:
    """Find the files; what can be read only once is copied to TMPDIR for as long as the block runs.

    Raises `Undecided` for a name without a file, and `MarketDataStoreError` if TMPDIR is full.
    """
    found = Found()
    seen: set[Path] = set()
    with ExitStack() as stack:
        for name in given:
            if name == STANDARD_INPUT:
                directory = stack.enter_context(own_directory())
                found.files.append(_copied(sys.stdin.buffer, directory / "standard input", found))
                continue
            for path in _named(name, found, recursive=recursive):
                if not path.is_file():  # a pipe
                    directory = stack.enter_context(own_directory())
                    with path.open("rb") as stream:
                        found.files.append(_copied(stream, directory / path.name, found))
                elif (resolved := path.resolve()) not in seen:
                    seen.add(resolved)
                    found.files.append(path)
        yield found


def _named(name: str, found: Found, *, recursive: bool) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        if not recursive:
            raise Undecided(f"{name}: a directory; give --recursive, or the files, such as '{path / '*.csv'}'")
        below = sorted(each for each in path.rglob("*") if each.is_file() and not _is_hidden(each.relative_to(path)))
        files = [each for each in below if _holds_rows(each)]
        found.others += [each for each in below if not _holds_rows(each)]
        if not files:
            raise Undecided(f"{name}: no name in it ends in {', '.join(SUFFIXES)}; give the files themselves")
        return files
    if path.exists():
        return [path]
    if not glob.has_magic(name):
        raise Undecided(f"{name}: no such file")
    files = sorted(Path(each) for each in glob.iglob(name, recursive=True))  # noqa: PTH207  # it may be absolute
    files = [each for each in files if not each.is_dir()]
    if not files:
        raise Undecided(f"{name}: no file has such a name")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _holds_rows(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        return suffixes[-1] == ".zip" or bool(set(suffixes) & {*SUFFIXES})
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def _copied(stream: IO[bytes], path: Path, found: Found) -> Path:
    try:
        with path.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
    except OSError as error:
        if error.errno not in FULL:
            raise MarketDataStoreError(f"{path.name}: {error.strerror}") from error
        raise full(f"{path.name}, of which there are more than {path.stat().st_size:,} bytes,") from error
    found.copied.append((path.name, path.stat().st_size))
    return path
