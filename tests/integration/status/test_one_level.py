"""Whoever shows or publishes the level says the same."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from celery import Celery
from playwright.sync_api import Browser, expect
from support.brokers import slow_on_rabbitmq
from support.processes import mds
from support.stream import Stream
from support.waiting import wait_until
from support.web import Web, monitor, serving

from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.local import free_port
from market_data_store.protocol import QUEUE, TASK

HEADLINE = "hard (no_workers): messages wait and no worker takes them"


def fill(producer: Celery, messages: int) -> None:
    for number in range(messages):
        row = {"provider": "p", "symbol": "S", "name": "n", "ts": 1_704_067_200 + number}
        producer.send_task(TASK, args=["signals", [row]], queue=QUEUE)


def queue_of(web: Web) -> tuple[str, str | None]:
    (found,) = (c for c in web.health().components if c.name == "queue")
    return found.details["level"], found.details.get("reason")


def level_gauge(web: Web) -> float | None:
    lines = web.client.get("/metrics").text.splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith("mds_backpressure_level ")), None)


@slow_on_rabbitmq
def test_six_places_and_the_gauge_say_the_same(
    broker_url: str,
    redis_url: str,
    database_url: str,
    producer: Celery,
    stream: Stream,
    chromium: Browser,
    tmp_path: Path,
) -> None:
    servers = {"BROKER_URL": broker_url, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    fill(producer, 100)
    with monitor(tmp_path, **servers), serving(tmp_path, **servers) as web:
        stream.wait_for("hard", "no_workers", timeout_s=30)
        wait_until(lambda: queue_of(web) == ("hard", "no_workers"), "health says it")
        status = web.client.get("/status.json").json()
        assert (status["queue"]["depth"], status["queue"]["level"], status["queue"]["reason"]) == (
            100,
            "hard",
            "no_workers",
        )
        assert (status["headline"], status["severity"], status["workers"]) == (HEADLINE, "critical", 0)
        page = chromium.new_page()
        try:
            page.goto(web.url)
            expect(page.locator("#level-name")).to_have_text("hard (no_workers)", timeout=30_000)
            expect(page).to_have_title(f"{HEADLINE} – market-data-store")
        finally:
            page.close()
        said = mds(tmp_path, "status", **servers)
        assert said.returncode == 1
        assert said.stdout.splitlines()[0] == f"status        {HEADLINE}"
        assert "\nlevel         hard (no_workers)\n" in said.stdout
        as_json = json.loads(mds(tmp_path, "status", "--json", **servers).stdout)
        assert as_json["headline"] == status["headline"]
        assert as_json["queue"] == status["queue"]
        assert as_json.keys() == status.keys()

        told = web.admin("POST", "/backpressure/check").json()
        assert (told["event"]["level"], told["event"]["reason"]) == ("hard", "no_workers")
        assert (told["event"]["queue_size"], told["receivers"]) == (100, {"redis": "delivered"})
        assert {(e.level.value, e.reason) for e in stream.events()[-2:]} == {("hard", "no_workers")}
        wait_until(lambda: level_gauge(web) == 2, "the gauge says it")
        assert "\nmds_queue_depth " not in web.client.get("/metrics").text, "the monitor has it"


def test_a_check_of_a_broker_that_is_gone_is_an_event(redis_url: str, database_url: str, tmp_path: Path) -> None:
    gone = f"redis://:s3cret@127.0.0.1:{free_port()}/0"
    servers = {"BROKER_URL": gone, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    with serving(tmp_path, **servers) as web:
        told = web.admin("POST", "/backpressure/check")
        assert told.status_code == 200
        assert told.json()["event"]["level"] == "hard"
        assert told.json()["event"]["reason"] == "broker_unreachable"
        assert told.json()["receivers"] == {"redis": "delivered"}
        assert web.log_text().count("the broker does not answer") == 1, "once, however often it is looked at"


def test_status_prints_what_it_can(redis_url: str, database_url: str, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    away = {
        "DATABASE_URL": f"postgresql://me:s3cret@{nowhere}/market",
        "BROKER_URL": f"redis://:s3cret@{nowhere}/0",
        "REDIS_URL": f"redis://:s3cret@{nowhere}/0",
    }
    here = {"DATABASE_URL": database_url, "BROKER_URL": redis_url, "REDIS_URL": redis_url}
    without_database = mds(tmp_path, "status", **{**here, "DATABASE_URL": away["DATABASE_URL"]})
    assert without_database.returncode == 1
    said = {line[:14].rstrip(): line[14:] for line in without_database.stdout.splitlines()}
    assert said["status"] == "not ready: Postgres does not answer; messages wait in the queue, nothing is lost"
    assert said["database"].startswith(f"postgresql://***@{nowhere}/market cannot connect to ")
    assert (said["schema"], said["dead letters"], said["level"]) == ("unknown", "unknown", "ok")
    assert said["queue"] == "0 waiting (0% of 10,000), held by workers: 0"
    without_broker = mds(tmp_path, "status", **{**here, "BROKER_URL": away["BROKER_URL"]})
    assert without_broker.returncode == 1
    said = {line[:14].rstrip(): line[14:] for line in without_broker.stdout.splitlines()}
    assert said["status"] == "hard (broker_unreachable): the broker does not answer; producers wait"
    assert (said["queue"], said["workers"], said["dead letters"]) == ("unknown", "unknown", "0")
    assert said["schema"].endswith(", up to date")
    nothing = mds(tmp_path, "status", **away)
    assert nothing.returncode == 1
    for done in (without_database, without_broker, nothing):
        assert done.stderr == ""
        assert "s3cret" not in done.stdout


def test_a_stream_cannot_command_the_terminal(redis_url: str, database_url: str, tmp_path: Path) -> None:
    with closing(RedisFeedbackPublisher(redis_url)) as publisher:
        publisher.send(FeedbackEvent.create(QUEUE, 1, 10, "hard", "\x1b]0;hacked\x07"))
    said = mds(tmp_path, "status", DATABASE_URL=database_url, BROKER_URL=redis_url)
    assert r"hard (\x1b]0;hacked\x07)" in said.stdout
    assert "\x1b" not in said.stdout
