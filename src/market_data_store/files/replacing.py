"""Writes a file that is complete or not there: it replaces what has its name when it is finished."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

#: Of a file that is written, until it has the mode of the file that it replaces.
_PRIVATE = 0o600


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets this name at the end of the block; an error leaves the old file as it was.

    It takes over the mode of the file that it replaces and, where that is allowed, its owner. A link is replaced, not
    followed. Until then it is called `NAME.RANDOM.part`, in the same folder; a kill leaves that behind.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    before = _before(path)
    # O_EXCL follows no link, so nobody can have the rows written elsewhere.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o666 if before is None else _PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            if before is not None:
                with suppress(PermissionError):  # only root gives files away
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            os.fsync(descriptor)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _before(path: Path) -> os.stat_result | None:
    """Return what is known of the file that is to be replaced, None if there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None
