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

import os
import pwd
import shutil
import signal
import socket
from pathlib import Path

import psycopg

from market_data_store.local.directory import Directory, EmbeddedServer, path_for, taken
from market_data_store.local.host import free_port
from market_data_store.local.programs import postgres_programs, valkey_program


def start_postgres(data: Path, *, port: int | None = None) -> EmbeddedServer:
    """A Postgres of one's own, ready for connections, with the database `market_data`.

    Durable as any Postgres (fsync stays on). Without `port` a free one is taken. Started by root it runs as `nobody`,
    since Postgres refuses root; its files stay in `data` all the same. Raises `ServerStartError`.
    """
    with taken("Postgres", data, signal.SIGINT) as directory:
        programs, port = postgres_programs(), port or free_port()
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        cluster = directory.path / "cluster"
        if not cluster.exists():
            _create_cluster(directory, programs, user, cluster)
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=100", "timezone=UTC"]
        with path_for(user, cluster) as (path, fds):
            # Left by kill -9, it prevents the start once some process of the same user has got the same pid. Nothing of
            # ours is running (`taken`), and beside a server started by hand Postgres refuses to start also without
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
    with taken("Valkey", data, signal.SIGTERM) as directory:
        port = port or free_port()
        command = [str(valkey_program()), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
        # At the usual 64 MB a full queue is rewritten while it is drained, each time all of it.
        command += ["--auto-aof-rewrite-min-size", "256mb"]
        process = directory.launch(command)
        directory.wait_until(lambda: _valkey_is_ready(port, process.pid), process)
        url = f"redis://127.0.0.1:{port}/0"
        return EmbeddedServer(name="Valkey", url=url, port=port, process=process, _directory=directory)


def _create_cluster(directory: Directory, programs: Path, user: pwd.struct_passwd | None, cluster: Path) -> None:
    # initdb is not atomic: what an interrupted one leaves behind looks like a cluster to Postgres.
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
