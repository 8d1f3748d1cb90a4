"""A day on a platform: servers that come late, terminals and readers that go, full and read-only disks, equal names."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, StartWorker
from support.processes import MDS, PYTHON, Process, inherited, mds, run, running
from support.waiting import wait_until
from support.web import is_served

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.local import free_port, start_postgres
from market_data_store.local.processes import web_command, worker_command

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
WORKER = (PYTHON, "-m", *worker_command(concurrency=2))
WEB = (PYTHON, "-m", *web_command())
#: Nothing listens there: the port is reserved, and nobody is given it.
NOWHERE = "postgresql://store:secret@127.0.0.1:1/market_data"
only_redis = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)


@pytest.fixture(autouse=True)
def hangups_reach_processes() -> Iterator[None]:
    """Under `nohup`, which may run these tests, processes inherit that they ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def signals(first: int, count: int) -> list[dict[str, object]]:
    return [
        {"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9 + n, "value": n} for n in range(first, first + count)
    ]


def send(producer: Celery, messages: int, rows: int = 20) -> None:
    for n in range(messages):
        producer.send_task(TASK, args=["signals", signals(n * rows, rows)], queue=QUEUE, ignore_result=True)


def count(database: Connection, table: str = "signals") -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def outside_its_file_systems(setup: str, *command: str) -> tuple[str, ...]:
    """A command that sees what `setup` mounts, which nobody else sees; only root can do that."""
    probe = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    if probe.returncode != 0 and os.environ.get("CI") != "true":
        pytest.skip("unshare -m needs root")
    return ("unshare", "-m", "sh", "-ec", f'{setup}\nexec "$@"', "sh", *command)


@only_redis
def test_a_worker_says_at_its_start_that_postgres_is_away_and_goes_on_when_it_comes(
    producer: Celery, broker_url: str, tmp_path: Path
) -> None:
    port = free_port()
    url = f"postgresql://postgres@127.0.0.1:{port}/market_data"
    with running(*WORKER, directory=tmp_path, environment={"DATABASE_URL": url, "BROKER_URL": broker_url}) as worker:
        worker.wait_for_text("messages wait in the broker until Postgres answers")
        assert worker.text().count("cannot connect to") == 1
        assert "Traceback" not in worker.text()
        send(producer, 3)
        with start_postgres(tmp_path / "postgres", port=port):
            migrated = mds(tmp_path, "migrate", DATABASE_URL=url)
            assert "none -> 0010" in migrated.stdout, migrated
            worker.wait_for_text("Postgres answers")
            worker.wait_for_text("written")
            worker.end()


def test_the_release_waits_for_postgres_and_says_so(tmp_path: Path) -> None:
    port = free_port()
    url = f"postgresql://postgres@127.0.0.1:{port}/market_data"
    started = time.monotonic()
    refused = mds(tmp_path, "migrate", "--wait", "2", DATABASE_URL=url)
    assert 2.0 <= time.monotonic() - started < 20.0
    assert refused.returncode == 1
    assert refused.stdout.count("trying for another") == 1
    assert refused.stderr.count("\n") == 1
    with running(*MDS, "migrate", directory=tmp_path, environment={"DATABASE_URL": url}) as release:
        release.wait_for_text("trying for another")
        with start_postgres(tmp_path / "postgres", port=port):
            assert release.wait() == 0, release.said()
    assert "none -> 0010" in release.text()


def test_without_a_database_and_a_broker_every_process_waits_without_a_traceback(tmp_path: Path) -> None:
    """The monitor and web say in one line what is away; all of them end at SIGTERM."""
    environment = {"DATABASE_URL": NOWHERE, "BROKER_URL": "redis://127.0.0.1:1/0", "MDS_ENV": "development"}
    port = free_port()
    with (
        running(*WORKER, directory=tmp_path, environment=environment, name="worker") as worker,
        running(*MDS, "monitor", directory=tmp_path, environment=environment, name="monitor") as monitor,
        running(*WEB, directory=tmp_path, environment={**environment, "APP_PORT": str(port)}, name="web") as web,
    ):
        wait_until(lambda: is_served(f"http://127.0.0.1:{port}/healthz"), "web serves", timeout_s=PATIENCE_S)
        worker.wait_for_text("The broker does not answer: ")
        monitor.wait_for_text("The broker does not answer: cannot connect to redis://127.0.0.1:1/0: ")
        for part in ("Postgres", "the broker"):
            web.wait_for_text(f"{part} does not answer")
        status = mds(tmp_path, "status", **environment)
        assert status.returncode == 1
        assert "port 1 failed: Connection refused" in status.stdout
        for process in (worker, monitor, web):
            process.end()
            assert "Traceback" not in process.whole_text(), process.said()
            assert "secret" not in process.whole_text()


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_two_workers_of_one_name_are_told_apart(
    broker_url: str, database_url: str, queue: QueueInspector, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    command = (PYTHON, "-m", *worker_command(concurrency=1), "-n", "twin@here")
    with running(*command, directory=tmp_path, environment=environment, name="first") as first:
        first.wait_for_text("ready.")
        wait_until(lambda: queue.workers() == ["twin@here"], "the first answers")
        assert queue.namesakes == {}
        with running(*command, directory=tmp_path, environment=environment, name="second") as second:
            second.wait_for_text("Another worker has the name twin@here")
            wait_until(lambda: queue.workers() == ["twin@here"] * 2, "both are counted")
            assert queue.namesakes == {"twin@here": 2}
            assert "2 workers have the name twin@here" in mds(tmp_path, "status", **environment).stdout
            second.end()
        wait_until(lambda: queue.workers() == ["twin@here"], "one is left")
        assert "Another worker" not in first.text()


@pytest.mark.parametrize("broker_url", ["rabbitmq"], indirect=True)
def test_on_rabbitmq_a_second_worker_of_a_name_waits_for_the_first_to_end(
    broker_url: str, database_url: str, database: Connection, producer: Celery, tmp_path: Path
) -> None:
    """Without a flood: Celery tries again ten times a second."""
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    command = (PYTHON, "-m", *worker_command(concurrency=1), "-n", "twin@here")
    with running(*command, directory=tmp_path, environment=environment, name="first") as first:
        first.wait_for_text("ready.")
        with running(*command, directory=tmp_path, environment=environment, name="second") as second:
            second.wait_for_text("Another worker has the name twin@here, and RabbitMQ allows one")
            assert "Frequent restarts" not in second.text()
            first.end()
            second.wait_for_text("ready.")
            send(producer, 10)
            wait_until(lambda: count(database) == 200, "it writes")
            second.end()
            assert second.text().count("RESOURCE_LOCKED") < 5


@only_redis
def test_sighup_starts_a_worker_anew_under_its_name_and_loses_nothing(
    producer: Celery, broker_url: str, database_url: str, database: Connection, queue: QueueInspector, tmp_path: Path
) -> None:
    port = free_port()
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "MDS_WORKER_METRICS_PORT": str(port)}
    with running(*WORKER, "-n", "worker1@here", directory=tmp_path, environment=environment) as worker:
        worker.wait_for_text("ready.")
        send(producer, 400)
        wait_until(lambda: count(database), "rows are written")
        worker.send_signal(signal.SIGHUP)
        wait_until(lambda: worker.text().count("worker1@here ready.") == 2, worker.said, timeout_s=PATIENCE_S)
        wait_until(lambda: count(database) == 8_000, "all is stored", timeout_s=PATIENCE_S)
        assert queue.workers() == ["worker1@here"]
        assert is_served(f"http://127.0.0.1:{port}/metrics")
        worker.end()


@only_redis
def test_a_closed_terminal_ends_the_monitor_in_order(broker_url: str, tmp_path: Path) -> None:
    with running(*MDS, "monitor", directory=tmp_path, environment={"BROKER_URL": broker_url}) as monitor:
        monitor.wait_for_text("level")
        monitor.send_signal(signal.SIGHUP)
        assert monitor.wait() == 0
    with redis.Redis.from_url(broker_url) as client:
        assert not client.exists(f"mdp:mds.monitor.{QUEUE}"), "another monitor may lead at once"
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *MDS, "monitor")  # as `nohup`
    with running(*ignoring, directory=tmp_path, environment={"BROKER_URL": broker_url}) as monitor:
        monitor.wait_for_text("level")
        monitor.send_signal(signal.SIGHUP)
        monitor.end()


@only_redis
def test_mds_up_works_on_when_nobody_reads_and_ends_with_its_terminal(
    broker_url: str, database_url: str, database: Connection, producer: Celery, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    command = [*MDS, "up", "--web-port", "0", "--flower-port", "0", "--concurrency", "1"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=inherited(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as up:
        try:
            assert up.stdout is not None
            while "Ready" not in up.stdout.readline():
                assert up.poll() is None
            up.stdout.close()
            # More than a pipe holds: each message is a line of the worker's.
            for n in range(1_500):
                row = {**signals(n, 1)[0], "value": "x" * 40}
                producer.send_task(TASK, args=["signals", [row]], queue=QUEUE, ignore_result=True)
            wait_until(lambda: count(database, "dead_letters") == 1_500, "all are kept", timeout_s=PATIENCE_S)
            up.send_signal(signal.SIGHUP)
            assert up.wait(25.0) == 0
            assert not (tmp_path / ".mds/env").exists()
        finally:
            for child in psutil.Process(up.pid).children(recursive=True) if up.poll() is None else []:
                child.kill()
            up.kill()


@only_redis
def test_a_worker_whose_log_nobody_reads_writes_and_ends_in_order(
    broker_url: str, database_url: str, database: Connection, producer: Celery, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [str(part) for part in WORKER],
        cwd=tmp_path,
        env=inherited({"DATABASE_URL": database_url, "BROKER_URL": broker_url, "PYTHONUNBUFFERED": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as worker:
        try:
            assert worker.stdout is not None
            while "ready." not in worker.stdout.readline():
                assert worker.poll() is None
            worker.stdout.close()
            send(producer, 50)
            wait_until(lambda: count(database) == 1_000, "rows are written", timeout_s=PATIENCE_S)
            worker.terminate()
            assert worker.wait(25.0) == 0
        finally:
            worker.kill()


@only_redis
def test_a_full_directory_for_temporary_files_costs_counts_only(
    producer: Celery, broker_url: str, database_url: str, database: Connection, tmp_path: Path
) -> None:
    """A page of a sparse file that gets no space ends the process that writes to it."""
    small = tmp_path / "small"
    small.mkdir()
    command = outside_its_file_systems(f"mount -t tmpfs -o size=1m,mode=1777 none {small}", *map(str, WORKER))
    environment = {
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "TMPDIR": str(small),
        "MDS_WORKER_METRICS_PORT": str(free_port()),
    }
    with running(*command, directory=tmp_path, environment=environment) as worker:
        worker.wait_for_text("ready.")
        fill(Path(f"/proc/{worker.pid}/root{small}"))
        send(producer, 20)
        wait_until(lambda: count(database) == 400, "rows are written", timeout_s=PATIENCE_S)
        for child in worker.descendants():
            child.kill()
        wait_until(lambda: len(worker.descendants()) == 2, "the pool is whole again", timeout_s=PATIENCE_S)
        producer.send_task(TASK, args=["signals", signals(400, 20)], queue=QUEUE, ignore_result=True)
        wait_until(lambda: count(database) == 420, "rows are written", timeout_s=PATIENCE_S)
        worker.end()
    assert "SIGBUS" not in worker.whole_text()
    assert "not served" in worker.whole_text()
    assert count(database, "dead_letters") == 0


def fill(directory: Path) -> None:
    with (directory / "full").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    assert os.statvfs(directory).f_bavail == 0


@pytest.mark.parametrize("name", ["worker", "web", "monitor", "up"])
def test_without_a_directory_to_write_to_a_process_works_or_names_the_setting(name: str, tmp_path: Path) -> None:
    """Also as an ordinary user without a home, since nothing there is written."""
    read_only = (
        "for d in /tmp /var/tmp /usr/tmp; do "
        "if test -d $d; then mount --bind $d $d; mount -o remount,ro,bind $d; fi; done; cd /var/tmp"
    )
    commands: dict[str, tuple[str | Path, ...]] = {
        "worker": WORKER,
        "web": WEB,
        "monitor": (*MDS, "monitor"),
        "up": (*MDS, "up", "--web-port", "0", "--flower-port", "0"),
    }
    environment = {
        "DATABASE_URL": "" if name == "up" else NOWHERE,
        "BROKER_URL": "redis://127.0.0.1:1/0",
        "MDS_WORKER_METRICS_PORT": str(free_port()),
        "HOME": "/nonexistent",
    }
    command = outside_its_file_systems(read_only, *map(str, commands[name]))
    if name == "monitor":
        with running(*command, directory=tmp_path, environment=environment) as monitor:
            monitor.wait_for_text("level hard (broker_unreachable)")
            monitor.end()
        return
    ended = run(*command, directory=tmp_path, environment=environment, timeout_s=PATIENCE_S)
    assert ended.returncode in {1, 2}
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ended
    assert ("MDS_HOME" if name == "up" else "set TMPDIR") in lines[0]
    assert "Traceback" not in ended.stderr + ended.stdout


@only_redis
@pytest.mark.parametrize("trouble", ["slow", "large", "held"])
def test_a_worker_at_work_ends_within_a_platforms_grace_period(
    trouble: str, producer: Celery, broker_url: str, database: Connection, start_worker: StartWorker
) -> None:
    variables = {"MDS_VISIBILITY_TIMEOUT_S": "5", "MDS_HELD_PROBE_S": "1"}
    if trouble == "slow":
        database.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$; "
            "CREATE TRIGGER slow BEFORE INSERT ON signals FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    elif trouble == "held":
        database.execute("ALTER TABLE signals RENAME COLUMN score TO away")
    worker = start_worker(**variables)
    size = 5_000 if trouble == "slow" else 60_000 if trouble == "large" else 20
    send(producer, 2, size)
    taken = {"slow": "pool", "large": "pool", "held": "is held"}[trouble]
    if trouble == "held":
        worker.wait_for_log(taken)
    else:
        with redis.Redis.from_url(broker_url) as client:
            wait_until(lambda: client.hlen("unacked") == 2, "the worker has the messages")
    started = time.monotonic()
    worker.stop()  # asserts the exit status
    assert time.monotonic() - started < 25.0
    if trouble == "slow":
        database.execute("DROP TRIGGER slow ON signals")
    elif trouble == "held":
        database.execute("ALTER TABLE signals RENAME COLUMN away TO score")
    start_worker(**variables)
    wait_until(lambda: count(database) == 2 * size, "nothing is lost", timeout_s=PATIENCE_S)


@only_redis
def test_web_answers_open_requests_before_it_ends(broker_url: str, database_url: str, tmp_path: Path) -> None:
    port = free_port()
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "APP_PORT": str(port)}
    with running(*WEB, directory=tmp_path, environment=environment) as web:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_served(f"{url}/healthz"), "web serves", timeout_s=PATIENCE_S)
        slow = Process("curl", "-sS", "--limit-rate", "20k", f"{url}/metrics", directory=tmp_path, output_apart=True)
        wait_until(lambda: slow.output.stat().st_size > 0 or not slow.is_running, "the answer begins")
        web.end()
        assert slow.wait() == 0, slow.said()
    assert "mds_" in slow.output.read_text()
