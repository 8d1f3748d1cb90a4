"""What finds no room in memory goes to TMPDIR: how much that is, and the error for when it is full."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from market_data_store.errors import MarketDataStoreError

#: What a disk without room, or a limit of size, raises.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def own_directory() -> Iterator[Path]:
    """Make a directory in TMPDIR, for two loads must not share the names of their files."""
    with tempfile.TemporaryDirectory(prefix="mds-load-") as directory:
        yield Path(directory)


def full(what: str) -> MarketDataStoreError:
    """Make the error for what finds no room in TMPDIR."""
    return MarketDataStoreError(
        f"{what} does not fit into {tempfile.gettempdir()}; set TMPDIR to a directory with more room; nothing was sent"
    )
