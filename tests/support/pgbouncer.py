"""PgBouncer for tests: Debian's `pgbouncer` as a separate process, in transaction mode, on a free port."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from market_data_store.local import free_port
from support.processes import Process
from support.waiting import wait_until

_PROGRAM = Path("/usr/sbin/pgbouncer")
#: Databases come and go with the tests, so idle sessions are closed soon.
_CONFIGURATION = """
[databases]
* = host={host} port={postgres_port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
server_idle_timeout = 5
"""
_NOISE_PAUSE_S = 0.002


def available() -> bool:
    """Whether PgBouncer is installed."""
    return _PROGRAM.exists()


class PgBouncer:
    """A pooler before one Postgres, that can be stopped, killed and started again on the same port. Made running."""

    def __init__(self, postgres_url: str, *, pool_size: int, user: str | None = None) -> None:
        """`user`: as whom its clients connect; without, that of the URL."""
        server, port = urlsplit(postgres_url), free_port()
        owner = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
        self._directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))  # pytest's directories are closed to other users
        self._directory.chmod(0o755)
        configuration = self._directory / "pgbouncer.ini"
        configuration.write_text(
            _CONFIGURATION.format(
                host=server.hostname,
                postgres_port=server.port,
                user=user or server.username,
                port=port,
                pool_size=pool_size,
            )
        )
        #: Of the same database.
        self.url = server._replace(netloc=f"{user or server.username}@127.0.0.1:{port}").geturl()
        self.process = Process(_PROGRAM, configuration, directory=self._directory, user=owner)
        self._wait_until_it_answers()

    def start(self) -> None:
        """Start it again."""
        self.process.start()
        self._wait_until_it_answers()

    def stop(self) -> None:
        """SIGTERM, at which it drops its clients."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()  # its status is 1

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def remove(self) -> None:
        """End it for good."""
        self.process.kill()
        shutil.rmtree(self._directory)

    def _wait_until_it_answers(self) -> None:
        wait_until(lambda: _answers(self.url) or not self.process.is_running, self.process.said)
        assert self.process.is_running, self.process.said()


@contextmanager
def pgbouncer(postgres_url: str, *, pool_size: int) -> Iterator[str]:
    """The URL of the same database through a pooler with this many sessions for each database."""
    pooler = PgBouncer(postgres_url, pool_size=pool_size)
    try:
        yield pooler.url
    finally:
        pooler.remove()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def other_clients(url: str, number: int = 2) -> Iterator[None]:
    """Clients with short transactions: they make the pooler give others a different session each time."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            # A test may end the sessions, in the middle of a statement.
            with suppress(psycopg.Error), psycopg.connect(url, prepare_threshold=None) as connection:
                while not done.wait(_NOISE_PAUSE_S):
                    connection.execute("SELECT count(*) FROM pg_class").fetchall()
                    connection.commit()

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
