"""What kombu unpacks in processes of the store is bounded."""

from __future__ import annotations

import bz2
import lzma
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import kombu.compression
import pytest

from market_data_store.config import settings
from market_data_store.connections.compression import TooLarge, bound, unpacked

LIMIT = 1 << 20
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
}


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    bound(lambda: LIMIT)
    yield
    bound(lambda: settings().max_message_bytes)


@pytest.mark.parametrize("name", PACKERS)
def test_a_body_is_unpacked_up_to_the_limit(name: str) -> None:
    for size in (0, 1, LIMIT):
        assert unpacked(PACKERS[name](bytes(size)), name) == bytes(size)
    bomb = PACKERS[name](bytes(64 * LIMIT))
    tracemalloc.start()
    with pytest.raises(TooLarge):
        unpacked(bomb, name)
    assert tracemalloc.get_traced_memory()[1] < 16 * LIMIT
    tracemalloc.stop()
    with pytest.raises(ValueError, match="ends early"):
        unpacked(PACKERS[name](bytes(100))[:-4], name)


def test_what_cannot_be_bounded_is_not_unpacked() -> None:
    kombu.compression.register(bytes, bytes, "application/x-other")
    bound(lambda: LIMIT)
    with pytest.raises(ValueError, match="not supported"):
        unpacked(b"x", "application/x-other")
    del kombu.compression._decoders["application/x-other"], kombu.compression._encoders["application/x-other"]
