"""Embedded servers: a real Postgres and a real Valkey for laptops and tests, without installing a server.

Owns the server processes: their programs, their settings, when they are ready and how they end. The caller chooses
their directories and ports. The migrations own what is in the database.

- The programs come in wheels (the extra `local`). Without the wheels, the system's programs are used. Nothing is
  downloaded. They run on Linux and macOS.
- A directory has one owner at a time. It keeps its data over restarts, even after kill -9. `server.log` and `lock` are
  beside the data.
- The servers listen on 127.0.0.1 only. Without `password` every user of the machine can connect, and is Postgres's
  superuser. With one, nobody else can; data that were made without, by version 0.4, are kept and get it.
- On Linux they end with the process that started them, however that process ends. Start them from the main thread:
  for the kernel, a child's parent ends with the *thread* that started the child (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import psycopg

from market_data_store.local.directory import Directory, EmbeddedServer, path_for, taken
from market_data_store.local.host import free_port
from market_data_store.local.postgres_password import ask_for
from market_data_store.local.programs import postgres_programs, valkey_program

_VALKEY_SETTINGS = [
    "bind 127.0.0.1",
    'save ""',
    "appendonly yes",
    "appendfsync everysec",
    "maxmemory-policy noeviction",
    # With the default of 64 MB, the whole of a full queue is rewritten again and again while it is drained.
    "auto-aof-rewrite-min-size 256mb",
]


def start_postgres(
    data: Path, *, port: int | None = None, password: str = "", choose: Callable[[], int] = free_port
) -> EmbeddedServer:
    """Start a Postgres with the database `market_data`, and return it when it accepts connections.

    It is as durable as any Postgres (fsync stays on). Without `port` it takes the one that `choose` returns, which is
    called when no earlier server of this directory is running any more. When root starts it, it runs
    as `nobody`, because Postgres refuses root; its files are still in `data`. Raises `ServerStartError`.
    """
    with taken("Postgres", data, signal.SIGINT) as directory:
        programs, port = postgres_programs(), port or choose()
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        cluster = directory.path / "cluster"
        if not cluster.exists():
            _create_cluster(directory, programs, user, cluster)
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=100", "timezone=UTC"]
        with path_for(user, cluster) as (path, fds):
            # If kill -9 left this file behind, it prevents a start once another process of the same user has the same
            # pid. No server of ours is running here (`taken`). Beside a server that was started by hand, Postgres
            # refuses to start even without this file ("pre-existing shared memory block is still in use", tried with
            # 15.18 and 18.6).
            (cluster / "postmaster.pid").unlink(missing_ok=True)
            if password:
                ask_for(password, directory, [str(programs / "postgres"), "--single", "-D", path], user, fds)
            command = [str(programs / "postgres"), "-D", path, f"--port={port}", *(f"--{option}" for option in options)]
            process = directory.launch(command, user=user, pass_fds=fds)
        directory.wait_until(lambda: _postgres_is_ready(cluster, process.pid), process)
        server = f"postgresql://postgres{f':{password}' if password else ''}@127.0.0.1:{port}"
        _create_database(f"{server}/postgres")
        url = f"{server}/market_data"
        return EmbeddedServer(name="Postgres", url=url, port=port, process=process, _directory=directory)


def start_valkey(
    data: Path, *, port: int | None = None, password: str = "", choose: Callable[[], int] = free_port
) -> EmbeddedServer:
    """Start a Valkey that keeps its data on disk and evicts nothing, and return it when it accepts connections.

    If the machine fails, at most the last second is lost (`appendfsync everysec`). `port` and `choose` as in
    `start_postgres`. Raises `ServerStartError`.
    """
    with taken("Valkey", data, signal.SIGTERM) as directory:
        port = port or choose()
        settings = _VALKEY_SETTINGS + [f"port {port}"] + ([f"requirepass {password}"] if password else [])
        process = directory.launch([str(valkey_program()), "-"], text="\n".join(settings) + "\n")
        directory.wait_until(lambda: _valkey_is_ready(directory, port, process.pid, password), process)
        url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/0"
        return EmbeddedServer(name="Valkey", url=url, port=port, process=process, _directory=directory)


def _create_cluster(directory: Directory, programs: Path, user: pwd.struct_passwd | None, cluster: Path) -> None:
    # initdb is not atomic: to Postgres, the remains of an interrupted one look like a cluster.
    unfinished = cluster.with_name("cluster.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    if user:
        os.chown(unfinished, user.pw_uid, user.pw_gid, follow_symlinks=False)
    with path_for(user, unfinished) as (path, fds):
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        process = directory.launch([str(programs / "initdb"), "-D", path, *options], user=user, pass_fds=fds)
        directory.wait_until(lambda: process.poll() == 0, process)
    unfinished.rename(cluster)


def _postgres_is_ready(cluster: Path, pid: int) -> bool:
    """Return whether this postmaster accepts connections: lines 1 and 8 of its file say so (Postgres, miscadmin.h)."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _create_database(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = 'market_data'").rowcount == 0:
            connection.execute("CREATE DATABASE market_data")


def _valkey_is_ready(directory: Directory, port: int, pid: int, password: str) -> bool:
    """Return whether this server, and not another one on the same port, answers and has loaded its data."""
    if not directory.has_logged(b"Ready to accept connections"):
        return False  # the password is not for whoever may have the port instead
    login = f"AUTH {password}\r\n" if password else ""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(f"{login}PING\r\nINFO server\r\n".encode())
            reply = connection.recv(65_536)
    except OSError:
        return False
    return b"+PONG" in reply and b"process_id:%d\r" % pid in reply
