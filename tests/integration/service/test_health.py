"""Health against real servers that come and go: Core's HealthStatus, always, and within two seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from market_data_core.telemetry import HealthComponent, HealthStatus
from support.brokers import slow_on_rabbitmq
from support.fixtures.store import StartWorker
from support.waiting import wait_until
from support.web import Web, monitor, serving

from market_data_store.local import free_port, start_postgres, start_valkey
from market_data_store.postgres import schema

COMPONENTS = ["database", "migrations", "broker", "queue", "workers", "datasets", "feedback", "prometheus"]


@contextmanager
def never_answering() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(128)
        server.settimeout(0.1)
        done, accepted = threading.Event(), []

        def accept() -> None:
            while not done.is_set():
                try:
                    accepted.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join()
        for connection in accepted:
            connection.close()


def slowest_answer_s(web: Web) -> float:
    """Of the fastest of three rounds, since the machine may be busy elsewhere."""
    rounds = []
    for _ in range(3):
        started = time.monotonic()
        web.health("/health")
        between = time.monotonic()
        assert web.client.get("/readyz").status_code == 503
        rounds.append(max(between - started, time.monotonic() - between))
    return min(rounds)


@slow_on_rabbitmq
def test_all_is_healthy_once_a_worker_and_a_monitor_live(
    start_worker: StartWorker, broker_url: str, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    servers = {"DATABASE_URL": database_url.replace("postgresql://", "postgres://"), "BROKER_URL": broker_url}
    servers["REDIS_URL"] = redis_url
    with serving(tmp_path, **servers) as web:
        wait_until(lambda: web.states()["workers"] == "degraded")
        assert web.client.get("/readyz").status_code == 200  # it takes rows, and they wait
        start_worker(REDIS_URL=redis_url)
        wait_until(lambda: web.states()["workers"] == "healthy")
        with monitor(tmp_path, **servers):
            wait_until(lambda: set(web.states().values()) == {"healthy"}, timeout_s=30)
            for path in ("/health", "/healthz", "/readyz"):
                answer = web.client.get(path)
                assert answer.status_code == 200
                status = HealthStatus.model_validate_json(answer.text, strict=True)
                assert (status.service, status.state) == ("market-data-store", "healthy")
                assert [component.name for component in status.components] == COMPONENTS
                assert abs(status.ts - time.time()) < 60


def test_a_database_that_stops_and_comes_back(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as stack:
        with start_postgres(tmp_path / "data", port=port) as server:
            schema.upgrade(server.url)
            web = stack.enter_context(serving(tmp_path, DATABASE_URL=server.url, BROKER_URL=redis_url))
            wait_until(lambda: web.client.get("/readyz").status_code == 200)
        wait_until(lambda: web.states()["database"] == "unhealthy")
        assert web.health().state == "degraded"
        not_ready = web.client.get("/readyz")
        assert not_ready.status_code == 503
        assert HealthStatus.model_validate_json(not_ready.text).components[0].details["error"]
        assert web.client.get("/health").status_code == 200
        with start_postgres(tmp_path / "data", port=port):
            wait_until(lambda: web.client.get("/readyz").status_code == 200)
            assert web.states()["database"] == web.states()["migrations"] == "healthy"


def test_a_database_that_accepts_and_never_answers(redis_url: str, tmp_path: Path) -> None:
    with never_answering() as port:
        url = f"postgresql://reader:s3cret@127.0.0.1:{port}/market_data"
        with serving(tmp_path, DATABASE_URL=url, BROKER_URL=redis_url) as web:
            assert slowest_answer_s(web) < 2
            assert web.states()["database"] == "unhealthy"
            assert web.states()["broker"] == "healthy"
            assert "s3cret" not in web.client.get("/health").text + web.log_text()


@pytest.mark.parametrize("broker", ["gone", "never answers"])
def test_a_broker_that_does_not_answer(broker: str, database_url: str, tmp_path: Path) -> None:
    with never_answering() as silent:
        port = free_port() if broker == "gone" else silent
        with serving(tmp_path, DATABASE_URL=database_url, BROKER_URL=f"redis://:s3cret@127.0.0.1:{port}/0") as web:
            assert slowest_answer_s(web) < 2
            assert web.states()["broker"] == "unhealthy"
            assert web.states()["database"] == "healthy"
            assert web.health().state == "degraded"
            assert "s3cret" not in web.client.get("/health").text + web.log_text()
            if broker == "gone":
                with start_valkey(tmp_path / "valkey", port=port) as server:
                    with redis.Redis.from_url(server.url) as client:
                        client.config_set("requirepass", "s3cret")
                    wait_until(lambda: web.client.get("/readyz").status_code == 200)


def test_without_any_server_the_store_is_unhealthy(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    with serving(tmp_path, DATABASE_URL=f"postgresql://{nowhere}/x", BROKER_URL=f"redis://{nowhere}/0") as web:
        assert web.health().state == "unhealthy"
        assert slowest_answer_s(web) < 2


@pytest.mark.slow
def test_a_receiver_that_takes_no_feedback(redis_url: str, database_url: str, tmp_path: Path) -> None:
    servers = {"DATABASE_URL": database_url, "BROKER_URL": redis_url}
    nowhere = {"MDS_FB_ENABLE_HTTP_BROADCAST": "true", "MDS_FB_HTTP_ENDPOINT": f"http://127.0.0.1:{free_port()}/"}
    with serving(tmp_path, **servers) as web:
        assert web.states()["feedback"] == "degraded"  # no monitor has ever been there
        with monitor(tmp_path, **servers, **nowhere):
            wait_until(lambda: feedback(web).details.get("http") == "failed", timeout_s=30)
            assert feedback(web).state == "degraded"
            assert feedback(web).details["redis"] == "delivered"


def feedback(web: Web) -> HealthComponent:
    return next(component for component in web.health().components if component.name == "feedback")


def test_a_schema_that_is_behind_is_not_ready(postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    with serving(tmp_path, DATABASE_URL=postgres_url, BROKER_URL=redis_url) as web:
        assert web.client.get("/readyz").status_code == 503
        assert web.states()["database"] == "healthy"
        assert web.states()["migrations"] == "unhealthy"


def test_a_thousand_probes_leave_two_connections_at_most_and_no_thread(
    database: psycopg.Connection[Any], redis_url: str, database_url: str, tmp_path: Path
) -> None:
    with serving(tmp_path, DATABASE_URL=database_url, BROKER_URL=redis_url) as web:
        paths = ["/health", "/healthz", "/readyz", "/health"] * 250
        with ThreadPoolExecutor(20) as pool:
            codes = list(pool.map(lambda path: web.client.get(path).status_code, paths))
        assert codes == [200] * 1_000
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert database.execute(others).fetchall()[0][0] <= 2
        assert "Traceback" not in web.log_text()
        # Each new thread that asks Redis costs a descriptor where libuuid has its clock's file.
        threads = threads_of(web)
        for path in paths[:40]:
            web.client.get(path)
        assert threads_of(web) <= threads


def threads_of(web: Web) -> set[int]:
    """The threads of web's processes."""
    return {thread.id for process in web.process.descendants() for thread in process.threads()}
