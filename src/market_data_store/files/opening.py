"""The bytes of a file as text: how it is compressed and encoded, its first part, and its lines.

gzip, zip (with one file in it), bzip2, xz and zstd are recognised by their first bytes, not by the name. A mark at the
beginning says UTF-8 or UTF-16; other files are UTF-8, or what `--encoding` says.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa

from market_data_store.errors import InvalidMessage
from market_data_store.files.options import Undecided

Compression = Literal["", "gzip", "zip", "bz2", "xz", "zstd"]
_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: What is read to detect the layout, in bytes.
SAMPLE_BYTES = 256 * 1024
#: The longest line, in characters; a JSON document may be one.
LONGEST_LINE = 256 * 1024 * 1024
#: What a decompressor raises for damaged bytes.
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError, pa.ArrowException)


class Damaged(InvalidMessage):
    """A file breaks off, or its bytes are not what its format says."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file whose bytes can be read as text, any number of times."""

    path: Path
    compression: Compression
    encoding: str
    #: The first part of the text; whole if the file is not longer.
    sample: str
    is_whole: bool
    #: The name of the file inside a zip.
    inner: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether the file on disk is UTF-8 as it stands, with lines that end in LF."""
        return not self.compression and self.encoding in ("utf-8", "utf-8-sig") and not self.has_cr_lines

    @property
    def has_cr_lines(self) -> bool:
        """Whether lines end in CR without LF."""
        return "\r" in self.sample and "\n" not in self.sample

    def lines(self) -> Iterator[str]:
        """Yield the lines with their ends; raises `Damaged`, and `Undecided` for bytes that are not text."""
        number = 0
        with self.text() as text:
            try:
                while line := text.readline(LONGEST_LINE + 1):
                    number += 1
                    if len(line) > LONGEST_LINE:  # a few bytes that are packed can be a line of gigabytes
                        raise InvalidMessage(f"{self.path}: line {number:,} has more than {LONGEST_LINE:,} characters")
                    yield line
            except UnicodeDecodeError as error:
                raise self.not_text(error, number + 1) from error
            except _DAMAGE as error:
                raise self.damaged(error, number) from error

    def parts(self) -> Iterator[bytes]:
        """Yield the decompressed bytes in parts; raises `Damaged`."""
        lines = 0
        with self.bytes() as raw:
            try:
                while part := raw.read(1 << 20):
                    lines += part.count(b"\n")
                    yield part
            except _DAMAGE as error:
                raise self.damaged(error, lines) from error

    @contextmanager
    def text(self) -> Iterator[IO[str]]:
        """Open the text, with the ends of lines as they are."""
        with self.bytes() as raw:
            yield io.TextIOWrapper(io.BufferedReader(_Raw(raw), 1 << 20), encoding=self.encoding, newline="")

    @contextmanager
    def bytes(self) -> Iterator[IO[bytes]]:
        """Open the decompressed bytes."""
        with _decompressed(self.path, self.compression) as raw:
            yield raw

    def damaged(self, error: Exception, lines: int) -> Damaged:
        """Make the error for bytes that cannot be decompressed."""
        said = " ".join(str(error).split())
        return Damaged(f"{self.path}: damaged behind line {lines:,}: {said}; nothing of it was stored")

    def not_text(self, error: UnicodeDecodeError, line: int) -> Undecided:
        """Make the error for bytes that are not text in this encoding."""
        name = self.encoding.removesuffix("-sig").upper()
        byte = error.object[error.start : error.start + 1].hex()
        return Undecided(f"{self.path}: line {line:,} is not {name} (byte 0x{byte}); give --encoding, such as cp1252")


class _Raw(io.RawIOBase):
    """Lets any stream be buffered; closing it leaves the stream open."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _decompressed(path: Path, compression: Compression) -> Iterator[IO[bytes]]:
    match compression:
        case "gzip":
            with gzip.open(path, "rb") as unpacked:
                yield unpacked  # type: ignore[misc]  # it is a BufferedIOBase
        case "bz2":
            with bz2.open(path, "rb") as stream:
                yield stream
        case "xz":
            with lzma.open(path, "rb") as lzma_stream:
                yield lzma_stream
        case "zip":
            with zipfile.ZipFile(path) as archive, archive.open(_member(archive, path)) as member:
                yield member
        case "zstd":
            with path.open("rb") as packed, pa.CompressedInputStream(packed, "zstd") as arrow_stream:
                yield arrow_stream
        case _:
            with path.open("rb") as raw:
                yield raw


def _member(archive: zipfile.ZipFile, path: Path) -> str:
    files = [info.filename for info in archive.infolist() if not info.is_dir()]
    if "[Content_Types].xml" in files:
        raise InvalidMessage(f"{path}: a workbook of a spreadsheet program; save its sheet as CSV")
    files = [name for name in files if not name.startswith("__MACOSX/")]
    if len(files) != 1:
        raise InvalidMessage(f"{path}: a zip of {len(files)} files; unpack it and give the files that are meant")
    return files[0]


def open_file(path: Path, encoding: str | None) -> Opened:
    """Find out how a file is compressed and encoded; raises `InvalidMessage`, `Damaged` or `Undecided`."""
    try:
        with path.open("rb") as raw:
            head = raw.read(8)
        compression: Compression = next((name for magic, name in _MAGIC if head.startswith(magic)), "")
        inner = ""
        if compression == "zip":
            with zipfile.ZipFile(path) as archive:
                inner = _member(archive, path)
        with _decompressed(path, compression) as stream:
            head = _read(stream, SAMPLE_BYTES)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.strerror:
            raise InvalidMessage(f"{path}: {error.strerror}") from error
        raise Damaged(f"{path}: damaged: {' '.join(str(error).split())}; nothing of it was stored") from error
    found = encoding or next((name for mark, name in _MARKS if head.startswith(mark)), None) or "utf-8"
    try:
        decoder = codecs.getincrementaldecoder(found)()
    except LookupError as error:
        raise Undecided(f"--encoding {found}: Python knows no encoding of this name") from error
    is_whole = len(head) < SAMPLE_BYTES
    opened = Opened(path, compression, found, "", is_whole, inner)
    if encoding is None and found == "utf-8" and b"\0" in head[:4_096]:
        raise Undecided(f"{path}: its bytes are not text in UTF-8; give --encoding, such as utf-16-le")
    try:
        text = decoder.decode(head, final=is_whole)
    except UnicodeDecodeError as error:
        raise opened.not_text(error, head.count(b"\n", 0, error.start) + 1) from error
    return Opened(path, compression, found, text, is_whole, inner)


def _read(stream: IO[bytes], size: int) -> bytes:
    """Read the first bytes: as many as there are before the first damage."""
    parts: list[bytes] = []
    got = 0
    try:
        while got < size and (part := stream.read(min(65_536, size - got))):
            parts.append(part)
            got += len(part)
    except _DAMAGE:
        if not parts:
            raise
    return b"".join(parts)
