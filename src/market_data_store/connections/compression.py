"""Compressed bodies, unpacked up to a limit: 785 bytes of bzip2 can hold a gigabyte of zeros.

`bound` replaces kombu's decoders in the process. So the limit holds for whatever kombu reads: tasks, control messages,
events and answers.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import kombu.compression


class TooLarge(ValueError):
    """A body is larger than the limit when it is unpacked."""


#: What LZMA may take besides. A body names the size of the dictionary that it needs: 65 MB at most usually, or 4 GB.
_LZMA_MEMORY = 128 << 20
_UNPACKERS: dict[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": partial(lzma.LZMADecompressor, memlimit=_LZMA_MEMORY),
}


def bound(limit: Callable[[], int]) -> None:
    """Let kombu unpack at most `limit()` bytes; what cannot be bounded is not unpacked at all."""
    for name in kombu.compression.encoders():
        make = _UNPACKERS.get(name)
        decode = _refused if make is None else _bounded(make, limit)
        kombu.compression.register(kombu.compression.get_encoder(name)[0], decode, name)


def unpacked(body: bytes, compression: str) -> bytes:
    """Unpack a body; raises `TooLarge`, or another error of any kind for a body that is damaged."""
    return bytes(kombu.compression.decompress(body, compression))


def _bounded(make: Callable[[], Any], limit: Callable[[], int]) -> Callable[[Any], bytes]:
    def decode(body: Any) -> bytes:
        unpacker, most = make(), limit()
        found: bytes = unpacker.decompress(body, most + 1)
        if len(found) > most:
            raise TooLarge(f"more than {most} bytes")
        if not unpacker.eof:
            raise ValueError("the compressed body ends early")
        return found

    return decode


def _refused(body: Any) -> bytes:
    raise ValueError("this kind of compression is not supported")
