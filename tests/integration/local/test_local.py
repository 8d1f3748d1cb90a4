"""The embedded servers: real processes, stopped, killed and started again on the same directories."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from support.processes import PYTHON, Process, run, running
from support.waiting import wait_until

import market_data_store
from market_data_store.errors import ServerStartError
from market_data_store.local import free_port, start_postgres, start_valkey
from market_data_store.local.directory import taken

SOURCE = Path(market_data_store.__file__).parents[1]
START = {"Postgres": start_postgres, "Valkey": start_valkey}
BOTH = pytest.mark.parametrize("name", START)

# Starts both servers below the directory argv[1], prints process id and URL of each and waits.
OWNER = """
import json, sys
from pathlib import Path
from market_data_store.local import start_postgres, start_valkey

home = Path(sys.argv[1])
with start_postgres(home / "Postgres") as postgres, start_valkey(home / "Valkey") as valkey:
    print(json.dumps({server.name: (server.pid, server.url) for server in (postgres, valkey)}), flush=True)
    sys.stdin.read()
"""


def write_entry(url: str) -> None:
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS entry ()")
            connection.execute("INSERT INTO entry DEFAULT VALUES")
    else:
        with redis.Redis.from_url(url) as client:
            client.rpush("entry", 1)


def count_entries(url: str) -> int:
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            return len(connection.execute("SELECT FROM entry").fetchall())
    with redis.Redis.from_url(url) as client:
        return len(client.lrange("entry", 0, -1))


def has_ended(pid: int) -> bool:
    try:
        # A zombie stays one where no init collects it, as in many containers.
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Process]:
    """Another process that is about to own both servers below `tmp_path`."""
    with running(PYTHON, "-c", OWNER, tmp_path, directory=tmp_path, with_input=True) as process:
        yield process
        process.close_input()  # which ends it
        process.wait()


def pids_and_urls(owner: Process) -> dict[str, tuple[int, str]]:
    servers: dict[str, tuple[int, str]] = json.loads(owner.wait_for_line(1))
    return servers


@BOTH
def test_data_survive_a_restart(name: str, tmp_path: Path) -> None:
    with START[name](tmp_path / name) as server:
        write_entry(server.url)
    with START[name](tmp_path / name) as server:
        assert count_entries(server.url) == 1


@BOTH
def test_data_survive_kill_9_of_the_server(name: str, tmp_path: Path) -> None:
    with START[name](tmp_path / name) as server:
        write_entry(server.url)
        server.process.kill()
        server.process.wait()
    with START[name](tmp_path / name) as server:
        assert count_entries(server.url) == 1


def test_servers_end_cleanly_with_their_owner_on_kill_9_and_start_again(tmp_path: Path, owner: Process) -> None:
    servers = pids_and_urls(owner)
    for _, url in servers.values():
        write_entry(url)
    owner.popen.kill()
    owner.wait()
    # At once, while the old servers may still be ending.
    for name, start in START.items():
        with start(tmp_path / name) as server:
            assert count_entries(server.url) == 1
    assert "not properly shut down" not in (tmp_path / "Postgres" / "server.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_no_server_outlives_its_owner(owner: Process) -> None:
    servers = pids_and_urls(owner)
    owner.popen.kill()
    wait_until(lambda: all(has_ended(pid) for pid, _ in servers.values()))


def test_a_server_that_outlived_its_owner_is_ended_by_the_next_start(tmp_path: Path) -> None:
    """The case of macOS, which does not end children with their parents."""
    script = (
        "import sys; from pathlib import Path; from market_data_store.local import start_valkey\n"
        "sys.platform = 'darwin'\n"
        "server = start_valkey(Path(sys.argv[1])); print(server.pid, flush=True); sys.stdin.read()"
    )
    with running(PYTHON, "-c", script, tmp_path, directory=tmp_path, with_input=True) as owner:
        pid = int(owner.wait_for_line(1))
        owner.popen.kill()
        owner.wait()
    try:
        assert not has_ended(pid)
        with start_valkey(tmp_path):
            wait_until(lambda: has_ended(pid))
    finally:
        if not has_ended(pid):
            os.kill(pid, signal.SIGKILL)


@BOTH
def test_a_directory_in_use_is_refused_in_one_line(name: str, tmp_path: Path, owner: Process) -> None:
    pids_and_urls(owner)
    with pytest.raises(ServerStartError, match=f"another `mds up` is using {tmp_path / name};") as refusal:
        START[name](tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_the_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ServerStartError, match=f"{tmp_path} belongs to user {os.getuid()}, not {os.getuid() + 1}"):
        start_valkey(tmp_path)


@BOTH
def test_a_taken_port_is_reported_with_the_end_of_the_log_and_frees_the_directory(name: str, tmp_path: Path) -> None:
    with START[name](tmp_path / "first") as first, pytest.raises(ServerStartError, match="Address already in use"):
        START[name](tmp_path / name, port=first.port)
    port = free_port()
    with START[name](tmp_path / name, port=port) as server:
        assert server.port == port


@BOTH
def test_servers_listen_on_loopback_only(name: str, tmp_path: Path) -> None:
    with START[name](tmp_path / name) as server:
        process = psutil.Process(server.pid)
        listening = {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert listening == {("127.0.0.1", server.port)}
        assert [c.laddr for c in process.net_connections("unix") if c.laddr] == []


@BOTH
def test_stop_is_clean_and_may_be_repeated(name: str, tmp_path: Path) -> None:
    server = START[name](tmp_path / name)
    server.stop()
    server.stop()
    assert server.process.returncode == 0
    log = (tmp_path / name / "server.log").read_text()
    assert ("database system is shut down" if name == "Postgres" else "ready to exit, bye bye") in log


@BOTH
def test_ctrl_c_in_the_terminal_does_not_reach_the_server(name: str, tmp_path: Path) -> None:
    with START[name](tmp_path / name) as server:
        assert os.getpgid(server.pid) != os.getpgid(0)


def test_valkey_keeps_all_keys_on_disk(tmp_path: Path) -> None:
    expected = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
    with start_valkey(tmp_path) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.config_get(*expected) == expected


def test_postgres_waits_for_the_disk(tmp_path: Path) -> None:
    with start_postgres(tmp_path) as server, psycopg.connect(server.url) as connection:
        query = "SELECT setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
        assert connection.execute(query).fetchall() == [("on",)] * 3


def test_a_long_log_is_begun_anew_while_the_server_runs(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with start_postgres(tmp_path) as server:
        server.bound_log()
        assert log.stat().st_size < 100_000
        assert not (tmp_path / "server.log.1").exists()
        with log.open("ab") as file:
            file.write(b"x" * 17_000_000)
        server.bound_log()
        assert (tmp_path / "server.log.1").stat().st_size > 17_000_000
        with psycopg.connect(server.url) as connection, pytest.raises(psycopg.Error):
            connection.execute("SELECT nonsense")
        assert 'column "nonsense" does not exist' in log.read_text()
        assert log.stat().st_size < 100_000, "not sparse: the server appends"


def test_an_interrupted_initdb_is_begun_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / "cluster.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    with start_postgres(tmp_path) as server:
        write_entry(server.url)
    assert not unfinished.exists()


def test_a_pid_file_with_the_pid_of_another_process_does_not_prevent_the_start(tmp_path: Path) -> None:
    start_postgres(tmp_path).stop()
    # Of the user that Postgres runs as: it takes the pid of anybody else's process for a stale one by itself.
    user = "nobody" if os.geteuid() == 0 else None
    with running("sleep", "60", directory=tmp_path, user=user) as other:
        cluster = tmp_path / "cluster"
        (cluster / "postmaster.pid").write_text(f"{other.pid}\n{cluster}\n1\n1\n\n127.0.0.1\n0 0\nready\n")
        start_postgres(tmp_path).stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_servers_start_for_an_ordinary_user() -> None:
    home = Path(tempfile.mkdtemp())  # pytest's own directories are closed to other users
    nobody = pwd.getpwnam("nobody")
    environment = {"PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"}

    def run_as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(PYTHON, *arguments, directory=home, environment=environment, inherit=False, user="nobody")

    try:
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        try:
            usable = run_as_nobody("-c", "import market_data_store.local").returncode == 0
        except PermissionError:
            usable = False
        if not usable:
            pytest.skip(f"user `nobody` cannot run {PYTHON}")
        finished = run_as_nobody("-c", OWNER, str(home))
        assert finished.returncode == 0, finished.stderr
        assert (home / "Postgres" / "cluster").stat().st_uid == nobody.pw_uid
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("status", [0, 1])
def test_a_program_that_ends_while_it_is_looked_at_has_done_its_work_or_failed(tmp_path: Path, status: int) -> None:
    with taken("Postgres", tmp_path / "data", signal.SIGINT) as directory:
        process = directory.launch(["sh", "-c", f"read line; exit {status}"], text="x" * 100_000)

        def is_done() -> bool:
            has_succeeded = process.poll() == 0
            process.wait()
            return has_succeeded

        failure = pytest.raises(ServerStartError, match=r"did not start \(exit status 1\)")
        with failure if status else nullcontext():
            directory.wait_until(is_done, process)
        directory.release()
