"""PgBouncer for tests: Debian's `pgbouncer` as a separate process, in transaction mode, on a free port."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from market_data_store.local import free_port
from support.processes import running
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


@contextmanager
def pgbouncer(postgres_url: str, *, pool_size: int) -> Iterator[str]:
    """The URL of the same database through a pooler with this many sessions for each database."""
    server, port = urlsplit(postgres_url), free_port()
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))  # pytest's directories are closed to other users
    try:
        directory.chmod(0o755)
        configuration = directory / "pgbouncer.ini"
        configuration.write_text(
            _CONFIGURATION.format(
                host=server.hostname, postgres_port=server.port, user=server.username, port=port, pool_size=pool_size
            )
        )
        with running(_PROGRAM, configuration, directory=directory, user=user) as process:
            url = server._replace(netloc=f"{server.username}@127.0.0.1:{port}").geturl()
            wait_until(lambda: _answers(url) or not process.is_running, process.said)
            assert process.is_running, process.said()
            yield url
    finally:
        shutil.rmtree(directory)


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
