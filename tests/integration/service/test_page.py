"""The status page under gunicorn, on real servers, and in a real Chromium."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from playwright.sync_api import expect
from support.brokers import slow_on_rabbitmq
from support.browser import Watched
from support.processes import PYTHON, Process
from support.waiting import wait_until
from support.web import get, wait_until_served

from market_data_store import dead_letters
from market_data_store.config import resource
from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.dead_letters import DeadLetter
from market_data_store.local import free_port, start_valkey
from market_data_store.producer.client import StoreClient
from market_data_store.protocol import QUEUE

Connection = psycopg.Connection[tuple[Any, ...]]
ROW = {"provider": "p", "symbol": "S", "name": "n"}
CAPACITY = 20
#: A look each two seconds, on a machine that may be busy with other things.
expect.set_options(timeout=60_000)


class Server(Process):
    """gunicorn with the page, which can be stopped and started again at the same URL."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        bind = ("--bind", f"127.0.0.1:{port}", "--threads", "4", "--no-control-socket", "--graceful-timeout", "1")
        command = (PYTHON, "-m", "gunicorn", *bind, "support.page_app:create()")
        super().__init__(*command, directory=directory, environment=environment, name="gunicorn")

    def start(self) -> None:
        super().start()
        wait_until_served(self, self.url, timeout_s=120)

    def status(self) -> dict[str, Any]:
        answer = get(f"{self.url}/status.json", timeout_s=60)
        assert answer.status_code == 200
        status: dict[str, Any] = answer.json()
        return status

    def wait_for(self, condition: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """The first status of which the condition is true."""
        found: dict[str, Any] = {}

        def look() -> object:
            found.update(self.status())
            return condition(found)

        wait_until(look, lambda: f"{what}; it says {json.dumps(found)[:4_000]}", timeout_s=60)
        return found


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(**environment: str) -> Server:
        common = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "MDS_QUEUE_CAPACITY": str(CAPACITY),
            # An event counts for as long as a busy machine may need to start a server.
            "MDS_FEEDBACK_HEARTBEAT_S": "600",
        }
        servers.append(Server(tmp_path, {**common, **environment}))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


def fill(producer: Celery, messages: int) -> None:
    with StoreClient(app=producer, max_rows=1, on_pressure="ignore") as client:
        for number in range(messages):
            client.write("signals", [{**ROW, "ts": 1_704_067_200 + number}])


def purge(producer: Celery) -> None:
    with producer.connection_for_write() as connection:
        connection.default_channel.queue_purge(QUEUE)


def letter(position: int, pattern: str, **options: Any) -> DeadLetter:
    return DeadLetter(task_id="t", position=position, reason="SECRET", pattern=pattern, enqueued_at=0, **options)


def tell(redis_url: str, *levels: str, reason: str | None = None) -> None:
    with closing(RedisFeedbackPublisher(redis_url)) as publisher:
        for size, level in enumerate(levels):
            publisher.send(FeedbackEvent.create(QUEUE, size, CAPACITY, level, reason))


@slow_on_rabbitmq
def test_status_json_shows_what_is_stored_and_running(
    serve: Serve, producer: Celery, broker_url: str, redis_url: str, database: Connection
) -> None:
    fill(producer, 7)
    tell(redis_url, "ok", "hard", "soft")
    letters = [
        letter(0, "close: … is not a number", dataset="bars"),
        letter(1, "close: … is not a number", dataset="bars"),
        letter(2, "Postgres refuses the row (SQLSTATE 23514)", dataset="ticks", sqlstate="23514"),
        letter(3, "body: … bytes, at most … (MDS_MAX_MESSAGE_BYTES)"),
    ]
    dead_letters.keep(database, letters)
    old = "INSERT INTO dead_letters (task_id, position, content_hash, dataset, reason, enqueued_at)"
    database.execute(f"{old} VALUES ('t', 4, 0, 'bars', 'SECRET', now())")
    server = serve(BROKER_URL=broker_url)
    # RabbitMQ counts a moment later than it confirms; the first look for workers takes two seconds.
    status = server.wait_for(
        lambda s: (s["queue"]["depth"], s["workers"], s["rows_per_s"]) == (7, 0, 0), "7 messages wait"
    )
    assert status["version"] == version("market-data-store")
    assert 0 <= status["age_s"] < 60
    assert status["queue"] == {
        "depth": 7,
        "refusal": None,
        "malformed": 0,
        "reserved": 0 if broker_url.startswith("redis") else None,
        "capacity": CAPACITY,
        "utilization": 0.35,
        "level": "hard",  # by this process's own look, whatever the last event says
        "reason": "no_workers",
        "workers": 0,
        "watermarks": {"soft_above": 0.5, "hard_from": 0.8, "hard_until": 0.65, "ok_at": 0.4},
    }
    assert [(e["level"], e["queue_size"], e["capacity"]) for e in status["events"]] == [
        ("soft", 2, CAPACITY),
        ("hard", 1, CAPACITY),
        ("ok", 0, CAPACITY),
    ]
    assert status["headline"] == "hard (no_workers): messages wait and no worker takes them"
    assert status["severity"] == "critical"
    states = {c["name"]: c["state"] for c in status["health"]["components"]}
    assert (status["health"]["state"], states["database"], states["workers"]) == ("degraded", "healthy", "degraded")
    moments = [point[0] for point in status["history"]]
    assert moments == sorted(moments)
    assert status["history"][0][1:] in ([0, "ok"], [1, "hard"], [2, "soft"])  # from the stream
    server.wait_for(lambda s: s["history"][-1][1:] == [7, "hard"], "the look is in the history")
    status = server.wait_for(lambda s: s["dead_letters"]["total"] == 5, "the database was looked at")
    assert [(r["dataset"], r["reason"], r["count"]) for r in status["dead_letters"]["reasons"]] == [
        ("bars", "close: … is not a number", 2),
        ("bars", "not classified", 1),
        ("ticks", "Postgres refuses the row (SQLSTATE 23514)", 1),
        (None, "body: … bytes, at most … (MDS_MAX_MESSAGE_BYTES)", 1),
    ]
    assert abs(status["dead_letters"]["reasons"][0]["last_ts"] - time.time()) < 300
    connections = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert database.execute(connections).rowcount == 1


def test_jobs_that_run_and_the_backfill_lanes_history_are_shown(
    serve: Serve, redis_url: str, database: Connection
) -> None:
    insert = "INSERT INTO job_runs (job_name, dataset_name, mode, status, metadata, rows_written, updated_at)"
    database.execute(
        f"{insert} VALUES ('mds load', 'bars', 'backfill', 'running', %s, 5, now()),"
        " ('other', NULL, 'live', 'running', '[1]', 7, now() - interval '1 hour'),"
        " ('ended', 'bars', 'live', 'success', '{}', 9, now())",
        ['{"rows_processed": 40, "rows_total": 90}'],
    )
    server = serve(BROKER_URL=redis_url)
    status = server.wait_for(lambda s: s["jobs"], "the jobs are known")
    shown = {job["name"]: (job["dataset"], job["rows"], job["total"], job["state"]) for job in status["jobs"]}
    assert shown == {"mds load": ("bars", 40, 90, "running"), "other": (None, 7, None, "stuck")}
    server.wait_for(lambda s: s["backfill_history"] and s["backfill_history"][-1][1:] == [0, "ok"], "its history")


def test_without_a_monitor_the_level_follows_from_depth_and_workers(
    serve: Serve, redis_url: str, redis_producer: Celery
) -> None:
    server = serve(BROKER_URL=redis_url)
    server.wait_for(lambda s: (s["queue"]["level"], s["events"]) == ("ok", []), "nothing waits")
    fill(redis_producer, 1)
    status = server.wait_for(lambda s: s["queue"]["reason"] == "no_workers", "nobody takes it")
    assert status["queue"]["level"] == "hard"


def test_rows_a_second_are_counted(serve: Serve, redis_url: str, database: Connection) -> None:
    server = serve(BROKER_URL=redis_url)
    insert = (
        "INSERT INTO signals (provider, symbol, ts, name, enqueued_at) VALUES ('p', 's', clock_timestamp(), 'n', now())"
    )

    def rate(status: dict[str, Any]) -> bool:
        database.execute(insert)
        return bool(status["rows_per_s"])

    server.wait_for(rate, "rows are counted")


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_servers_that_hang_or_are_gone_are_null_within_two_seconds(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with silent_server() as postgres:
        database_url = f"postgresql://u:p@127.0.0.1:{postgres}/d"
        server = serve(BROKER_URL=url, REDIS_URL=url, DATABASE_URL=database_url)
        assert min(seconds(server.status) for _ in range(10)) < 2  # of ten, since the machine may be busy
        status = server.wait_for(lambda s: s["queue"]["reason"] == "broker_unreachable", "the broker is gone")
        assert status["queue"]["depth"] is status["queue"]["utilization"] is status["workers"] is None
        assert status["queue"]["level"] == "hard"
        assert status["events"] is status["rows_per_s"] is None
        assert status["dead_letters"] == {"total": None, "oldest_ts": None, "reasons": None}
        assert status["headline"].startswith("hard (broker_unreachable): ")
        assert "Postgres does not answer" in status["headline"]
        with start_valkey(tmp_path / "valkey", port=port):
            # Postgres still hangs.
            status = server.wait_for(lambda s: s["queue"]["depth"] == 0 and s["events"] == [], "the broker is back")
            assert status["rows_per_s"] is None
            seen = len(status["history"])
            server.wait_for(lambda s: len(s["history"]) > seen + 1, "the depth is still looked at")


def test_a_database_connection_that_hangs_is_replaced(serve: Serve, redis_url: str, database: Connection) -> None:
    server = serve(BROKER_URL=redis_url)
    server.wait_for(lambda s: s["dead_letters"]["total"] == 0, "the database was looked at")
    others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ((backend,),) = database.execute(others).fetchall()
    os.kill(backend, signal.SIGSTOP)
    try:
        # The next look hangs; the one after it has a connection of its own.
        wait_until(lambda: set(database.execute(others)) - {(backend,)}, "another connection is there", timeout_s=60)
        server.wait_for(lambda s: s["dead_letters"]["total"] == 0, "it is used")
    finally:
        os.kill(backend, signal.SIGCONT)
    wait_until(lambda: database.execute(others).rowcount == 1, "the first connection has ended")


@pytest.mark.slow  # a look that failed is not repeated soon
def test_a_table_that_is_locked_costs_its_own_figure_alone(
    serve: Serve, redis_url: str, database: Connection, database_url: str
) -> None:
    server = serve(BROKER_URL=redis_url)
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE")
        server.wait_for(lambda s: s["dead_letters"]["total"] is None and s["rows_per_s"] == 0, "the letters are locked")
    server.wait_for(lambda s: s["dead_letters"]["total"] == 0, "the lock is gone")


@pytest.fixture
def redis_producer(redis_url: str) -> Iterator[Celery]:
    with Celery("page-producer", broker=redis_url, set_as_current=False) as app:
        yield app


def test_the_page_follows_the_queue_by_itself(
    serve: Serve, watched: Watched, redis_producer: Celery, redis_url: str, database: Connection
) -> None:
    dead_letters.keep(database, [letter(0, "close: … is not a number", dataset="bars")])
    page = watched(serve(BROKER_URL=redis_url))
    expect(page.locator("#level-name")).to_have_text("degraded")  # there is no worker, and nothing waits
    expect(page.locator("#depth")).to_have_text("0")
    expect(page.locator("#level")).to_have_attribute("aria-live", "polite")
    expect(page.locator("#health li")).to_have_count(8)
    expect(page.locator("#health")).to_contain_text("alive: 0")
    expect(page.locator("#reasons")).to_contain_text("close: … is not a number")
    expect(page.locator("#letters")).to_have_text("1")
    fill(redis_producer, 17)
    tell(redis_url, "ok", "hard")
    expect(page.locator("#depth")).to_have_text("17")
    expect(page.locator("#level-name")).to_have_text("hard (no_workers)")
    expect(page.locator("#level-words")).to_have_text("messages wait and no worker takes them")
    expect(page.locator("#level-meaning")).to_contain_text("producers wait until the level falls")
    expect(page.locator("#level-since")).to_contain_text("Since ")
    help_ = page.get_by_role("link", name="What to do").first
    expect(help_).to_have_attribute("href", "docs/troubleshooting.md#no-worker-takes-messages")
    expect(page).to_have_title("hard (no_workers): messages wait and no worker takes them – market-data-store")
    expect(page.locator("#utilization")).to_have_text("85 %")
    expect(page.locator("#events li")).to_have_count(2)
    expect(page.locator("#plot .line").last).to_be_attached()
    expect(page.locator("#plot .mark")).to_have_count(3)
    assert "at most 17" in str(page.locator("#plot svg").get_attribute("aria-label"))
    page.locator("#plot").hover()
    expect(page.locator("#pointed")).to_contain_text("waiting")
    purge(redis_producer)
    tell(redis_url, "ok")
    expect(page.locator("#level-name")).to_have_text("degraded")
    expect(page.locator("#depth")).to_have_text("0")


def test_the_page_says_when_it_has_lost_the_server_and_finds_it_again(
    serve: Serve, watched: Watched, redis_url: str
) -> None:
    server = serve(BROKER_URL=redis_url)
    page = watched(server)
    expect(page.locator("#lost")).to_be_hidden()
    server.end()
    expect(page.locator("#lost")).to_be_visible()
    expect(page.locator("#lost")).to_contain_text("Lost the server: no answer since ")
    expect(page).to_have_title("no answer from the server – market-data-store")
    server.start()
    expect(page.locator("#lost")).to_be_hidden()
    expect(page).to_have_title(re.compile("^degraded: .* – market-data-store$"))


def test_hostile_values_are_shown_as_text(serve: Serve, watched: Watched, redis_url: str, database: Connection) -> None:
    attack = "<img src=x onerror=document.title=hacked><script>document.title='hacked'</script>"
    database.execute(
        "INSERT INTO dead_letters (task_id, position, content_hash, dataset, reason, pattern, enqueued_at) "
        "VALUES (%s, 0, 0, %s, %s, %s, now())",
        ["t", attack, "", f"<script>alert(1)</script> {attack}"],
    )
    tell(redis_url, "hard", reason=attack)
    page = watched(serve(BROKER_URL=redis_url))
    expect(page.locator("#reasons li")).to_have_count(1)
    expect(page.locator("#reasons")).to_contain_text("<script>alert(1)</script>")
    expect(page.locator("#events")).to_contain_text(attack)
    assert page.locator("main script, main img").count() == 0
    assert page.title().endswith(" – market-data-store")


#: Every text of the page whose contrast with its ground is below AA's 4.5.
CONTRAST = """() => {
  const parse = (css) => css.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
  };
  return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && [...e.childNodes].some(
    (n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim())).map((e) => {
    const style = getComputedStyle(e);
    const pair = [luminance(parse(e instanceof SVGElement ? style.fill : style.color)), luminance(ground(e))];
    return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), e.tagName, e.textContent];
  }).filter(([ratio]) => ratio < 4.5);
}"""


def test_the_page_is_readable_on_a_phone_light_and_dark(
    serve: Serve, watched: Watched, redis_url: str, database: Connection
) -> None:
    dead_letters.keep(database, [letter(0, "x" * 290, dataset="bars")])
    server = serve(BROKER_URL=redis_url)
    grounds = []
    for number, scheme in enumerate(["light", "dark"]):
        tell(redis_url, *["ok", "soft", "hard"][: 3 - number], reason="a_reason_that_is_long_" * 5)
        page = watched(server, color_scheme=scheme, viewport={"width": 360, "height": 640})
        expect(page.locator("#reasons li")).to_have_count(1)
        expect(page.locator("#events li").first).to_contain_text(["hard", "soft"][number])
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate(CONTRAST) == []
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_the_page_is_small_and_allows_nothing_from_elsewhere(serve: Serve, redis_url: str) -> None:
    server = serve(BROKER_URL=redis_url)
    files = list(resource("service/static").iterdir())
    assert {file.suffix for file in files} == {".html", ".css", ".js", ".svg"}
    assert sum(file.stat().st_size for file in files) < 80_000
    paths = ["/", "/status.json", *(f"/status-page/{file.name}" for file in files)]
    for path in paths:
        headers = get(server.url + path).raise_for_status().headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
    assert get(f"{server.url}/status-page/../page.py").status_code == 404
