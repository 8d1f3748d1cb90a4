"""The data directory of one embedded server, locked by one process, and the server that runs in it."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import psycopg

from market_data_store.errors import ServerStartError
from market_data_store.local.host import end_with_parent

#: Long enough to recover gigabytes after kill -9; an empty server is ready in less than 1 s.
START_TIMEOUT_S = 60.0
#: A longer log is begun anew; what it was is kept beside it until the next time.
_LOG_BYTES = 16 * 1024 * 1024
#: A server that was asked to stop is killed after this.
STOP_TIMEOUT_S = 20.0
# Not the caller's environment: it may hold secrets, and initdb would write its TZ into postgresql.conf.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


@dataclass(frozen=True, kw_only=True)
class EmbeddedServer:
    """A running server; `stop` or the end of its `with` block ends it."""

    name: str
    url: str
    port: int
    process: subprocess.Popen[bytes]
    _directory: Directory

    @property
    def pid(self) -> int:
        """Process id of the server; for Postgres, of the postmaster."""
        return self.process.pid

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop the server with all data on disk (kill it after `timeout_s`), then release its directory; idempotent."""
        end(self.process, self._directory.stop_signal, timeout_s)
        self._directory.release()

    def bound_log(self) -> None:
        """Begin the server's log anew if it is long. A line that is written meanwhile may be lost."""
        self._directory.bound_log()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass(frozen=True, kw_only=True)
class Directory:
    """The data directory of one server, locked by this process."""

    name: str
    path: Path
    stop_signal: signal.Signals
    lock: IO[bytes]
    log: IO[bytes]
    #: Size of the log before this start, in bytes.
    log_start: int
    undo: ExitStack

    def launch(
        self,
        command: Sequence[str],
        *,
        user: pwd.struct_passwd | None = None,
        pass_fds: Sequence[int] = (),
        text: str = "",
    ) -> subprocess.Popen[bytes]:
        """Start a program that writes to the log. It ends with this process, or when the server fails to start.

        It reads `text`, which nobody sees, as they would its command line.
        """
        process = subprocess.Popen(
            command,
            cwd=self.path if user is None else "/",
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE if text else subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
            # Ctrl-C in a terminal reaches the whole process group; the owner must stop the server after its clients.
            start_new_session=True,
            preexec_fn=end_with_parent(self.stop_signal),
        )
        self.undo.callback(end, process, self.stop_signal, STOP_TIMEOUT_S)
        if process.stdin is not None:
            with process.stdin as stdin, suppress(BrokenPipeError):  # it has ended, which `wait_until` sees
                stdin.write(text.encode())
        self.lock.truncate(0)
        self.lock.write(b"%d" % process.pid)
        self.lock.flush()
        return process

    def wait_until(self, ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
        """Poll until `ready`; raise `ServerStartError` with the end of the log if the process ends or time runs out."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            has_ended = process.poll() is not None  # before `ready`, which can become true by that
            if ready():
                return
            if has_ended:
                raise self._failure(f"did not start (exit status {process.returncode})")
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready after {START_TIMEOUT_S:.0f} s")
            time.sleep(0.01)

    def has_logged(self, words: bytes) -> bool:
        """Return whether the log has these words since this start."""
        self.log.seek(self.log_start)
        return words in self.log.read()

    def _failure(self, what: str) -> ServerStartError:
        self.log.seek(self.log_start)
        last_lines = self.log.read().decode(errors="replace").splitlines()[-5:]
        return ServerStartError("\n  ".join([f"{self.name} {what}; the end of {self.log.name}:", *last_lines]))

    def bound_log(self) -> None:
        """Move a long log to `server.log.1`, and go on in the same file, which the server has open to append."""
        log = self.path / "server.log"
        if log.stat().st_size > _LOG_BYTES:
            shutil.copyfile(log, log.with_name("server.log.1"))
            os.truncate(log, 0)

    def release(self) -> None:
        """Let another process take the directory; idempotent."""
        if not self.lock.closed:
            # Unlock explicitly: after a mere close, a child that was forked meanwhile would still hold the lock.
            fcntl.flock(self.lock, fcntl.LOCK_UN)
            self.lock.close()


@contextmanager
def taken(name: str, path: Path, stop_signal: signal.Signals) -> Iterator[Directory]:
    """Lock the directory; if the block fails, end what it launched and release the directory.

    There are two locks. The owner holds the one on `lock`, which shows whether an owner is alive. The server and its
    children inherit the one on the log with their output, so it is free only when the last of them has ended.
    """
    path = path.resolve()
    with ExitStack() as undo:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_owner(path, path.stat(), os.geteuid())
            lock = undo.enter_context((path / "lock").open("a+b"))
            if not _acquire(lock):
                raise ServerStartError(f"another `mds up` is using {path}; stop it or choose another directory")
            with (path / "server.log").open("a+b") as log:
                _end_leftover(path, lock, log, stop_signal)
                size = log.seek(0, os.SEEK_END)
                yield Directory(
                    name=name, path=path, stop_signal=stop_signal, lock=lock, log=log, log_start=size, undo=undo
                )
        except (OSError, psycopg.Error) as error:
            raise ServerStartError(f"{name} did not start in {path}: {error}{_remedy(error)}") from error
        undo.pop_all()


def _remedy(error: Exception) -> str:
    is_forbidden = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOSPC)
    return "; choose another directory with MDS_HOME" if is_forbidden else ""


def _acquire(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_leftover(path: Path, lock: IO[bytes], log: IO[bytes], stop_signal: signal.Signals) -> None:
    """Wait until a server whose owner was killed has ended; signal it, which macOS has not done for us."""
    lock.seek(0)
    pid = int(lock.read() or 0)
    if pid and not _acquire(log):
        try:
            os.kill(pid, stop_signal)
        except ProcessLookupError:
            pass  # its children hold the log for a moment longer
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not _acquire(log):
        if time.monotonic() > deadline:
            raise ServerStartError(f"process {pid} of an earlier run is still using {path}; end it")
        time.sleep(0.01)
    lock.truncate(0)


def end(process: subprocess.Popen[bytes], stop_signal: signal.Signals, timeout_s: float) -> None:
    """Ask a process to end with `stop_signal`; kill it after `timeout_s`."""
    process.send_signal(stop_signal)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def check_owner(path: Path, status: os.stat_result, uid: int) -> None:
    """Raise `ServerStartError` if a path belongs to another user."""
    if status.st_uid != uid:
        raise ServerStartError(f"{path} belongs to user {status.st_uid}, not {uid}; choose another directory")


@contextmanager
def path_for(user: pwd.struct_passwd | None, cluster: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the path by which Postgres reaches the directory, and the file descriptors that it needs for that.

    `nobody` may be unable to reach a directory below /root or pytest's directories by its name, but can reach it
    through an open descriptor (tried with initdb and postgres 15.18 and 18.6, with parallel workers and a crash
    recovery).
    """
    fd = os.open(cluster, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        check_owner(cluster, os.fstat(fd), user.pw_uid if user else os.geteuid())
        yield (f"/proc/self/fd/{fd}", (fd,)) if user and sys.platform == "linux" else (str(cluster), ())
    finally:
        os.close(fd)
