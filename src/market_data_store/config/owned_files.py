"""Files that hold secrets or name servers: taken from their owner only, and written for their owner only.

What another user of the machine put into a directory must neither name the servers nor run code, as with ssh's and
git's own files.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from market_data_store.errors import ConfigurationError

_SHARED = "others can write it; take that right from them with `chmod go-w`"


def variables(path: Path) -> dict[str, str]:
    """Return the variables in a file such as `.env`, by their names in capitals; see `read_owned`."""
    try:
        text = (read_owned(path) or b"").decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return {name.upper(): value or "" for name, value in dotenv_values(stream=StringIO(text)).items()}


def read_owned(path: Path) -> bytes | None:
    """Return what is in a regular file of this user or of root which nobody else can write; None if there is none.

    Raises `ConfigurationError` for the file of somebody else, or for a link that somebody else has made.
    """
    try:
        of_the_name = path.lstat()
        # O_NONBLOCK: a pipe must not keep the process waiting.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) or not os.access(path.parent, os.X_OK):
            return None
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    of_the_file = os.fstat(fd)
    if not stat.S_ISREG(of_the_file.st_mode):
        os.close(fd)
        return None
    with os.fdopen(fd, "rb") as file:
        for status in (of_the_name, of_the_file):
            if status.st_uid not in (os.geteuid(), 0):
                raise ConfigurationError(
                    f"{path}: belongs to user {status.st_uid}; only files of user {os.geteuid()} and of root are read; "
                    "delete it or change its owner"
                )
        if of_the_file.st_mode & stat.S_IWOTH or _is_shared_with_a_group(of_the_file):
            raise ConfigurationError(f"{path}: {_SHARED}")
        return file.read()


def _is_shared_with_a_group(status: os.stat_result) -> bool:
    # With a umask of 002 each user has a group of their own, to which alone their files are open.
    return bool(status.st_mode & stat.S_IWGRP) and status.st_gid not in (os.getegid(), 0)


def open_private(path: Path) -> int:
    """Open a file of this user for reading and writing, made with mode 0600 if there is none; return its descriptor.

    Raises `OSError`, also for a link and for another user's file.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, f"{path.name} is a link") from error
        raise
    try:
        require_own(path, os.fstat(fd))
        os.fchmod(fd, 0o600)  # first, so that what is written from now on is for nobody else
    except BaseException:
        os.close(fd)
        raise
    return fd


def require_own(path: Path, status: os.stat_result) -> None:
    """Raise `OSError` unless this is the status of a regular file of this user."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"{path.name} is not a file")
    if status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, f"{path.name} belongs to user {status.st_uid}, not {os.geteuid()}")


def write_private(path: Path, text: str, *, owner: tuple[int, int] | None = None) -> None:
    """Put a file of mode 0600 in this place, at once and whole. A link that is there is replaced, never followed.

    `owner` is a user and a group, if they are others than this process's.
    """
    fd, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # O_EXCL, O_NOFOLLOW, mode 0600
    try:
        with os.fdopen(fd, "w") as file:
            if owner is not None:
                os.fchown(fd, *owner)
            file.write(text)
            file.flush()
            os.fsync(fd)
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
