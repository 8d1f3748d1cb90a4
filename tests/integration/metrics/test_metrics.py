"""The metrics of real processes, as a scrape gets them."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import Bar, HoldBack, Send, StartWorker
from support.processes import MDS, PYTHON, running
from support.waiting import wait_until
from support.web import get

from market_data_store.local import free_port

#: The application that gunicorn serves here.
WEB_APP = """
import os
from flask import Flask
from market_data_store.coordinator.feedback import BackpressureLevel
from market_data_store.coordinator.queue import Reading
from market_data_store.metrics.definitions import set_queue_gauges
from market_data_store.service.metrics import install

def create_app():
    app = Flask("web")
    install(app)

    @app.get("/depth/<int:depth>")
    def depth(depth):
        set_queue_gauges(100, Reading(depth, None, None), BackpressureLevel.soft)
        return str(os.getpid())

    return app
"""


class Scrape:
    """What a process served at one moment."""

    def __init__(self, port: int, query: str = "") -> None:
        text = get(f"http://127.0.0.1:{port}/metrics{query}").raise_for_status().text
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def values(self, name: str, **labels: str) -> list[float]:
        """Of all series of this name with these labels, and more."""
        return [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.values(name, **labels))


def rows(scrape: Scrape) -> dict[str, float]:
    outcomes = ("written", "unchanged", "stale", "superseded", "rejected")
    return {outcome: scrape.sum("mds_rows_total", outcome=outcome) for outcome in outcomes}


def directory(parent: Path) -> Path:
    (found,) = parent.glob("mds-metrics-*")
    return found


def write_with_both(sent: list[list[Bar]], send: Send, writes_held_back: HoldBack) -> None:
    """Have each of the worker's two processes write at least one message."""
    with writes_held_back() as until_held:
        results = [send(sent[0])]
        until_held(1)
        results += [send(bars) for bars in sent[1:]]
        until_held(2)
    for result in results:
        result.get(timeout=30)


@on_redis
def test_rows_are_counted_once_over_all_processes_of_a_worker(
    start_worker: StartWorker, send: Send, bars: list[Bar], writes_held_back: HoldBack
) -> None:
    port = free_port()
    start_worker(MDS_WORKER_METRICS_PORT=str(port))
    assert rows(Scrape(port)) == {"written": 0, "unchanged": 0, "stale": 0, "superseded": 0, "rejected": 0}
    assert Scrape(port).values("mds_rows_total", dataset="ticks", outcome="rejected") == [0], "there before its first"
    write_with_both([bars[n : n + 5] for n in range(0, 200, 5)], send, writes_held_back)
    send([*bars[:10], {**bars[10], "high": "much"}]).get(timeout=30)
    with pytest.raises(ValueError, match="rows"):
        send("no list").get(timeout=30)
    scrape = Scrape(port)
    assert rows(scrape) == {"written": 200, "unchanged": 10, "stale": 0, "superseded": 0, "rejected": 2}
    assert scrape.sum("mds_rows_total", dataset="none") == 1
    assert scrape.sum("mds_batch_rows_sum", dataset="bars") == 211
    batches = scrape.sum("mds_batch_rows_count")
    assert 3 <= batches <= 41
    assert scrape.sum("mds_write_seconds_count") == batches
    assert scrape.sum("mds_write_seconds_sum") > 0
    assert scrape.values("mds_queue_depth") == [], "a worker does not know it"
    picked = Scrape(port, "?name[]=mds_rows_total")
    assert rows(picked) == rows(scrape)
    assert {sample.name for sample in picked.samples} == {"mds_rows_total"}


@on_redis
@pytest.mark.slow
def test_a_killed_process_stays_counted_and_its_replacement_adds(
    start_worker: StartWorker, send: Send, bars: list[Bar], writes_held_back: HoldBack, tmp_path: Path
) -> None:
    port = free_port()
    worker = start_worker(MDS_WORKER_METRICS_PORT=str(port), TMPDIR=str(tmp_path))
    assert stat.S_IMODE(directory(tmp_path).stat().st_mode) == 0o700
    files = set()
    for n in range(4):
        write_with_both([bars[start : start + 5] for start in (n * 10, n * 10 + 5)], send, writes_held_back)
        assert rows(Scrape(port))["written"] == (n + 1) * 10
        files.add(len(list(directory(tmp_path).iterdir())))
        killed = worker.pool_pids
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda killed=killed: len(worker.pool_pids) == 2 and worker.pool_pids.isdisjoint(killed))  # type: ignore[misc]
        assert rows(Scrape(port))["written"] == (n + 1) * 10
    assert len(files) == 1, "a process that is replaced leaves nothing"
    for pid in worker.pool_pids:
        wait_until(lambda pid=pid: not listens(pid, port), "the port is the parent's alone")  # type: ignore[misc]
    assert listens(worker.pid, port)
    worker.stop()
    assert list(tmp_path.glob("mds-metrics-*")) == []


def listens(pid: int, port: int) -> bool:
    process = psutil.Process(pid)
    connections = getattr(process, "net_connections", None) or process.connections
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections("tcp"))


@on_redis
def test_what_a_killed_worker_left_is_removed_by_the_next(start_worker: StartWorker, tmp_path: Path) -> None:
    old = time.time() - 3_600
    left, held, young = (tmp_path / f"mds-metrics-{name}" for name in ("left", "held", "young"))
    for path in (left, held, young):
        path.mkdir()
        (path / "counter_parent.db").touch()
        if path is not young:
            os.utime(path, (old, old))
    lock = os.open(held, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    port = free_port()
    start_worker(MDS_WORKER_METRICS_PORT=str(port), TMPDIR=str(tmp_path))
    os.close(lock)
    found = set(tmp_path.glob("mds-metrics-*"))
    assert found >= {held, young}
    assert len(found) == 3, "and the worker's own"
    assert rows(Scrape(port))["written"] == 0


@on_redis
def test_of_two_workers_with_one_port_the_second_warns_and_writes(
    start_worker: StartWorker, send: Send, bars: list[Bar]
) -> None:
    port = str(free_port())
    first = start_worker(MDS_WORKER_METRICS_PORT=port)
    second = start_worker(MDS_WORKER_METRICS_PORT=port)
    first.stop()
    assert send(bars[:5]).get(timeout=30)["written"] == 5
    warning = rf"WARNING.* No metrics are served: cannot listen on 127\.0\.0\.1:{port} .*MDS_WORKER_METRICS_PORT"
    assert re.search(warning, second.whole_log())
    assert second.whole_log().count("No metrics are served") == 1
    assert "No metrics are served" not in first.whole_log()


@on_redis
def test_without_a_port_a_worker_serves_and_keeps_nothing(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker(TMPDIR=str(tmp_path))
    assert list(tmp_path.glob("mds-metrics-*")) == []
    assert "erving metrics" not in worker.whole_log()
    assert "No metrics are served" not in worker.whole_log()


@on_redis
def test_retries_are_counted_by_the_class_of_their_sqlstate(
    start_worker: StartWorker,
    send: Send,
    bars: list[Bar],
    database: Connection,
    database_url: str,
) -> None:
    name = urlsplit(database_url).path[1:]
    database.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    port = free_port()
    worker = start_worker(MDS_WORKER_METRICS_PORT=str(port))
    result = send(bars[:5])
    # 25006, as after a failover
    wait_until(lambda: Scrape(port).sum("mds_write_retries_total", sqlstate_class="25") >= 2)
    database.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert result.get(timeout=30)["written"] == 5
    assert rows(Scrape(port))["written"] == 5
    worker.stop()

    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/none"
    port = free_port()
    start_worker(MDS_WORKER_METRICS_PORT=str(port), DATABASE_URL=nowhere)
    send(bars[:5])
    wait_until(lambda: Scrape(port).sum("mds_write_retries_total", sqlstate_class="none") >= 2)


def scraped(port: int) -> Scrape | None:
    """None while nobody listens."""
    try:
        return Scrape(port)
    except httpx.TransportError:
        return None


@on_redis
def test_the_monitor_serves_its_own_metrics(broker_url: str, send: Send, bars: list[Bar], tmp_path: Path) -> None:
    port = free_port()
    environment = {"BROKER_URL": broker_url, "MDS_MONITOR_METRICS_PORT": str(port), "MDS_QUEUE_CAPACITY": "50"}
    for n in range(30):
        send(bars[n : n + 1])
    with running(*MDS, "monitor", directory=tmp_path, environment=environment) as monitor:
        wait_until(lambda: (s := scraped(port)) is not None and s.values("mds_queue_depth") == [30], timeout_s=60)
        wait_until(lambda: Scrape(port).sum("mds_feedback_events_total", receiver="redis", outcome="delivered") >= 1)
        scrape = wait_until(
            lambda: (s := Scrape(port)).values("mds_backpressure_level") == [2] and s
        )  # no worker lives
        assert isinstance(scrape, Scrape)
        assert scrape.values("mds_queue_capacity") == [50]
        assert scrape.values("mds_workers") == [0]
        assert scrape.values("mds_broker_up") == [1]
        assert scrape.values("mds_feedback_events_total", receiver="redis", outcome="failed") == [0]
        assert time.time() - scrape.values("mds_monitor_looked_timestamp_seconds")[0] < 60
        monitor.send_signal(signal.SIGTERM)
        assert monitor.wait(25) == 0
    assert scraped(port) is None


def test_a_monitor_without_a_broker_says_so(tmp_path: Path) -> None:
    port = free_port()
    environment = {"BROKER_URL": f"redis://127.0.0.1:{free_port()}/0", "MDS_MONITOR_METRICS_PORT": str(port)}
    with running(*MDS, "monitor", directory=tmp_path, environment=environment):
        failed = {"receiver": "redis", "outcome": "failed"}
        wait_until(
            lambda: (s := scraped(port)) is not None and s.sum("mds_feedback_events_total", **failed) >= 1, timeout_s=60
        )
        scrape = Scrape(port)
        assert scrape.values("mds_broker_up") == [0]
        assert scrape.values("mds_backpressure_level") == [2]
        assert scrape.values("mds_feedback_events_total", receiver="redis", outcome="delivered") == [0]


def test_the_processes_of_gunicorn_are_counted_as_one(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "web_app.py").write_text(WEB_APP)
    environment = {
        "APP_PORT": str(port),
        "WEB_CONCURRENCY": "2",
        "DATABASE_URL": "postgresql://127.0.0.1:9/d",  # web asks for both, and this application uses neither
        "BROKER_URL": "redis://127.0.0.1:9/0",
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), *sys.path])),
    }
    command = [PYTHON, "-m", "gunicorn", "-c", "python:market_data_store.service.gunicorn_conf", "web_app:create_app()"]
    with running(*command, directory=tmp_path, environment=environment) as gunicorn:
        wait_until(lambda: scraped(port), "gunicorn serves", timeout_s=60)
        asked, answered_by = 0, set[str]()

        def ask() -> str:
            nonlocal asked
            asked += 1
            return get(f"http://127.0.0.1:{port}/depth/{asked}").raise_for_status().text

        def answered() -> float:
            endpoint = {"endpoint": "/depth/<int:depth>", "status": "200", "method": "GET"}
            return Scrape(port).sum("mds_http_request_duration_seconds_count", **endpoint)

        wait_until(lambda: answered_by.add(ask()) or len(answered_by) == 2, "both processes answer")  # type: ignore[func-returns-value]
        # A request is counted just before its answer goes out.
        assert answered() == asked
        for _ in range(6):
            assert Scrape(port).values("mds_queue_depth") == [asked], "the newest, whichever process is asked"
        files = len(list(directory(tmp_path).iterdir()))
        for killed in list(answered_by):
            os.kill(int(killed), signal.SIGKILL)
            wait_until(lambda killed=killed: not psutil.pid_exists(int(killed)))  # type: ignore[misc]
        answered_by.clear()
        wait_until(lambda: answered_by.add(ask()) or len(answered_by) == 2, "both are replaced")  # type: ignore[func-returns-value]
        assert answered() == asked
        assert Scrape(port).values("mds_queue_depth") == [asked]
        assert len(list(directory(tmp_path).iterdir())) == files
        assert Scrape(port, "?name[]=mds_queue_capacity").values("mds_queue_capacity") == [100]
        assert Scrape(port, "?name[]=none&name[]=%00%ff&name[]=").samples == []
        assert get(f"http://127.0.0.1:{port}/no-such-page/7").status_code == 404
        unknown = {"endpoint": "none", "status": "404"}
        assert Scrape(port).sum("mds_http_request_duration_seconds_count", **unknown) == 1
        assert Scrape(port).sum("mds_http_request_total") == asked + 1
        gunicorn.send_signal(signal.SIGTERM)
        assert gunicorn.wait(25) == 0
    assert list(tmp_path.glob("mds-metrics-*")) == []


@on_redis
def test_stale_rows_are_counted_by_how_late_they_are(start_worker: StartWorker, send: Send, bars: list[Bar]) -> None:
    port = free_port()
    start_worker(MDS_WORKER_METRICS_PORT=str(port))
    changed = [{**bar, "close": 1.0} for bar in bars[:3]]
    for late_s in (0.0, 45.0, 600.0):
        headers = {"enqueued_at": 1_700_000_000.0 - late_s}
        send(changed if late_s else bars[:3], headers=headers).get(timeout=30)
    scrape = Scrape(port)
    assert rows(scrape)["stale"] == 6
    by_bucket = {bound: scrape.sum("mds_stale_seconds_bucket", dataset="bars", le=bound) for bound in LATE}
    assert by_bucket == {"30.0": 0, "60.0": 3, "300.0": 3, "900.0": 6, "+Inf": 6}
    assert scrape.sum("mds_stale_seconds_sum", dataset="bars") == pytest.approx(3 * 45 + 3 * 600)


LATE = ("30.0", "60.0", "300.0", "900.0", "+Inf")
