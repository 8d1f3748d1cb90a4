"""A real Flower beside a real worker: what it shows of tasks and queue, and who may see it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from celery import Celery
from playwright.sync_api import Browser, expect
from support.brokers import on_redis
from support.fixtures.store import QUEUE, TASK, Bar, Send, StartWorker
from support.processes import MDS, Process, mds, running
from support.waiting import wait_until
from support.web import wait_until_served
from support.workers import Worker

from market_data_store.local import free_port, start_valkey
from market_data_store.local.passwords import passwords_in
from market_data_store.protocol import BACKFILL_QUEUE

LENGTHS = "/api/queues/length"
PASSWORD = "s3cret-of-the-broker"
#: Chromium, Flower and a worker start on a machine that may be busy.
PATIENCE_S = 60.0


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """With a password, to see that nobody sees it."""
    with start_valkey(tmp_path / "valkey") as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", PASSWORD)
        yield server.url.replace("redis://", f"redis://:{PASSWORD}@")


@contextmanager
def flower(broker_url: str, directory: Path, **environment: str) -> Iterator[tuple[httpx.Client, Process]]:
    url = f"http://127.0.0.1:{free_port()}"
    command = (*MDS, "flower", f"--port={url.rpartition(':')[2]}")
    with (
        running(*command, directory=directory, environment={"BROKER_URL": broker_url, **environment}) as process,
        httpx.Client(base_url=url, timeout=10) as client,
    ):
        wait_until_served(process, f"{url}/healthcheck", timeout_s=PATIENCE_S)
        yield client, process


@pytest.fixture
def own_worker(start_worker: StartWorker) -> Worker:
    """At the broker with the password."""
    return start_worker()


@pytest.fixture
def open_flower(broker_url: str, own_worker: Worker, tmp_path: Path) -> Iterator[httpx.Client]:
    """Flower in development, that hears this worker."""
    with flower(broker_url, tmp_path, MDS_ENV="development") as (client, _):
        client.auth = made(tmp_path)
        wait_until(lambda: worker_is_alive(client), "Flower hears the worker", timeout_s=PATIENCE_S)
        yield client


def made(directory: Path) -> tuple[str, str]:
    """The user and the password that the store has made there."""
    user, _, password = passwords_in(directory / ".mds").flower.partition(":")
    return user, password


def worker_is_alive(client: httpx.Client) -> bool:
    return any(found["status"] for found in client.get("/workers?json=1").json()["data"])


def tasks(client: httpx.Client, state: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/tasks", params={"state": state}).raise_for_status().json()
    return found


def test_each_task_is_shown_with_its_dataset_and_rows_and_no_payload(
    open_flower: httpx.Client, send: Send, producer: Celery, bars: list[Bar]
) -> None:
    rows = [{**bar, "symbol": "PAYLOAD"} for bar in bars[:3]]
    by_name = producer.send_task(TASK, kwargs={"dataset": "bars", "rows": rows}, queue=QUEUE)
    results = [send(rows), send(rows, kwargs={"defaults": {"provider": "PAYLOAD"}}), by_name]
    for result in results:
        result.get(timeout=PATIENCE_S)
    wait_until(lambda: len(tasks(open_flower, "SUCCESS")) == 3, timeout_s=PATIENCE_S)
    shown = tasks(open_flower, "SUCCESS")
    assert [shown[result.id]["args"] for result in results] == ["('bars', <~3 rows>)"] * 3
    assert [shown[result.id]["kwargs"] for result in results] == ["{}", "{...}", "{...}"]
    assert shown[results[0].id]["name"] == TASK
    pages = [open_flower.get(path).text for path in ("/api/tasks", "/api/workers?refresh=1", "/workers", "/broker")]
    pages += [open_flower.get(f"/task/{result.id}").text for result in results]
    pages += [open_flower.get(f"/worker/{name}").text for name in open_flower.get("/api/workers").json()]
    for page in pages:
        assert "PAYLOAD" not in page
        assert PASSWORD not in page


@on_redis
def test_a_browser_without_internet_shows_tasks_and_the_queue(
    open_flower: httpx.Client, own_worker: Worker, send: Send, bars: list[Bar], chromium: Browser, tmp_path: Path
) -> None:
    send(bars[:500]).get(timeout=PATIENCE_S)
    wait_until(lambda: tasks(open_flower, "SUCCESS"), timeout_s=PATIENCE_S)
    here = str(open_flower.base_url)
    elsewhere = []
    user, password = made(tmp_path)
    with chromium.new_page(http_credentials={"username": user, "password": password}) as page:
        page.on("request", lambda request: None if request.url.startswith(here) else elsewhere.append(request.url))
        page.goto(f"{here}/tasks")
        row = page.locator("#tasks-table tbody tr")
        for text in (TASK, "('bars', <~500 rows>)", "SUCCESS", "'written': 500"):
            expect(row).to_contain_text(text, timeout=PATIENCE_S * 1000)
        own_worker.stop()
        send(bars[:1])
        send(bars[1:2])
        lengths = {queue["name"]: queue["messages"] for queue in open_flower.get(LENGTHS).json()["active_queues"]}
        assert lengths == {QUEUE: 2, BACKFILL_QUEUE: 0}
        page.goto(f"{here}/broker")
        for queue, messages in lengths.items():
            row = page.locator("#queue-table tbody tr", has_text=queue)
            expect(row.locator("td").nth(0)).to_have_text(queue, timeout=PATIENCE_S * 1000)
            expect(row.locator("td").nth(1)).to_have_text(str(messages))
    assert elsewhere == []


@on_redis
def test_in_development_a_page_of_another_site_reads_and_changes_nothing(broker_url: str, tmp_path: Path) -> None:
    with flower(broker_url, tmp_path, MDS_ENV="development") as (client, _):
        for host in ("127.0.0.1", "evil.test"):
            read = client.get("/api/workers", headers={"Origin": "http://evil.test", "Host": host})
            assert read.status_code == 401
            assert "Access-Control-Allow-Origin" not in read.headers
        assert client.post("/api/worker/shutdown/worker").status_code == 401
        client.auth = made(tmp_path)
        assert client.get("/api/workers").status_code == 200
        assert client.post("/api/worker/shutdown/worker").status_code == 403
        assert client.post(f"/api/task/async-apply/{TASK}", json={"args": ["bars", []]}).status_code == 403


@on_redis
def test_in_production_it_asks_for_the_password_which_no_command_line_shows(broker_url: str, tmp_path: Path) -> None:
    own = ("operator", "its-very-own-password")
    with flower(broker_url, tmp_path, FLOWER_BASIC_AUTH=":".join(own)) as (client, process):
        for path in ("/", "/tasks", "/broker", "/api/tasks", "/api/workers"):
            assert client.get(path).status_code == 401
            assert client.get(path, auth=("operator", "wrong")).status_code == 401
            assert client.get(path, auth=own).status_code == 200
        command = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert "flower" in command
        assert own[1] not in command
        assert PASSWORD not in command
        process.send_signal(signal.SIGTERM)
        assert process.wait(25) == 0


@pytest.mark.parametrize("environment", [{}, {"FLOWER_BASIC_AUTH": "operator:changeme"}])
def test_in_production_it_does_not_start_without_a_password_of_its_own(
    environment: dict[str, str], tmp_path: Path
) -> None:
    refused = mds(tmp_path, "flower", BROKER_URL="redis://h", **environment)
    assert refused.returncode == 2
    said = refused.stdout + refused.stderr
    assert said.startswith("error: FLOWER_BASIC_AUTH is not user:password with a password of your own of at least 16 ")
    assert "MDS_ENV=development" in said
    assert said.count("\n") == 1
    assert "changeme" not in said


def test_it_ends_although_its_broker_is_away(tmp_path: Path) -> None:
    """Its threads ask the broker again and again; each page that somebody reads makes them ask more."""
    with start_valkey(tmp_path / "valkey") as server, flower(server.url, tmp_path, MDS_ENV="development") as running:
        client, process = running
        client.auth = made(tmp_path)
        server.stop()
        for _ in range(5):
            assert client.get("/workers").status_code == 200
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
