"""The admin endpoints on real servers: who may use them, and what each of them does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from support.brokers import on_redis
from support.processes import PYTHON, run
from support.sharing import Corner
from support.waiting import wait_until
from support.web import TOKEN, Web, serving
from support.workers import Worker

from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE

ADMIN = [
    ("GET", "/schema/version"),
    ("POST", "/migrate"),
    ("POST", "/retention/apply"),
    ("POST", "/backpressure/check"),
]


@pytest.fixture(scope="module")
def running_web(
    corner_at: Callable[[str], Corner], shared_redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Web]:
    servers = {"DATABASE_URL": corner_at(shared_redis_url).database_url, "BROKER_URL": shared_redis_url}
    with serving(tmp_path_factory.mktemp("web"), **servers, MDS_RETENTION_DAYS="ticks=30, bars=7") as running:
        yield running


@pytest.fixture
def web(running_web: Web, redis_url: str, database_url: str) -> Web:
    """The module's web process, with nothing in its database, its broker and its log."""
    running_web.process.forget_log()
    return running_web


@pytest.mark.parametrize(("token", "environment"), [("", ""), ("changeme", ""), ("changeme", "production")])
def test_without_its_own_token_admin_is_closed(
    token: str, environment: str, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    servers = {"DATABASE_URL": database_url, "BROKER_URL": redis_url}
    with serving(tmp_path, ADMIN_TOKEN=token, MDS_ENV=environment, **servers) as web:
        for method, path in ADMIN:
            answer = web.client.request(method, path, headers={"Authorization": f"Bearer {token or 'none'}"})
            assert answer.status_code == 503
            assert "ADMIN_TOKEN is" in answer.json()["error"]
        assert web.client.get("/health").status_code == 200


def test_wrong_requests_are_answered_in_json(web: Web) -> None:
    for method, path in ADMIN:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            answer = web.client.request(method, path, headers=header)
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
        wrong = web.admin("PUT", path)
        assert (wrong.status_code, list(wrong.json())) == (405, ["error"])
        assert method in wrong.headers["allow"]
    for body in (b"", b"{", b"[]", b'"x"', b'{"dry_run": 3}', b'{"dryrun": true}', b'{"dataset": "\\ud800"}'):
        answer = web.admin("POST", "/retention/apply", content=body)
        assert (answer.status_code, list(answer.json())) == (422, ["error"]), body
    assert web.client.get("/nowhere").status_code == 404
    assert "error" in web.client.get("/nowhere").json()
    assert TOKEN not in web.log_text()


def test_migrate_returns_the_revisions_before_and_after(unmigrated_url: str, redis_url: str, tmp_path: Path) -> None:
    with serving(tmp_path, DATABASE_URL=unmigrated_url, BROKER_URL=redis_url) as web:
        assert web.admin("GET", "/schema/version").json()["up_to_date"] is False
        first, second = (web.admin("POST", "/migrate").json() for _ in range(2))
        head = web.admin("GET", "/schema/version").json()["head"]
        assert first == {"before": None, "after": head}
        assert second == {"before": head, "after": head}
        assert web.client.get("/readyz").status_code in (200, 503)
        assert "POST /migrate" in web.log_text()


def test_retention_counts_then_deletes_what_is_too_old(web: Web, database: psycopg.Connection[Any]) -> None:
    insert = "INSERT INTO tick_data (provider, symbol, ts, seq, price, enqueued_at) VALUES ('p', 's', %s, %s, 1, now())"
    now = datetime.now(UTC)
    for number, age in enumerate((1, 29, 31, 400)):
        database.execute(insert, [now - timedelta(days=age), number])
    database.execute(insert.replace("tick_data", "quotes").replace("price, ", "bid, "), [now - timedelta(days=400), 0])

    counted = web.admin("POST", "/retention/apply", json={"dry_run": True}).json()
    assert [(e["dataset"], e["rows"], e["chunks"]) for e in counted["expired"]] == [
        ("ticks", 2, None),
        ("bars", 0, None),
    ]
    assert database.execute("SELECT count(*) FROM tick_data").fetchall() == [(4,)]
    ticks = {"dataset": "ticks", "expected": counted["expired"][:1]}
    database.execute(insert, [now - timedelta(days=35), 5])
    refused = web.admin("POST", "/retention/apply", json=ticks)
    assert refused.status_code == 409
    assert [e["rows"] for e in refused.json()["expired"]] == [3]
    assert database.execute("SELECT count(*) FROM tick_data").fetchall() == [(5,)]
    ticks["expected"] = refused.json()["expired"]
    database.execute(insert, [datetime.now(UTC) - timedelta(days=30), 6])  # it has become too old only since then
    applied = web.admin("POST", "/retention/apply", json=ticks).json()
    assert [(e["dataset"], e["rows"]) for e in applied["expired"]] == [("ticks", 3)]
    assert database.execute("SELECT seq FROM tick_data ORDER BY seq").fetchall() == [(0,), (1,), (6,)]
    missing = web.admin("POST", "/retention/apply", json={})
    assert missing.status_code == 422
    assert missing.json()["error"].startswith("expected: missing; give the list")
    assert database.execute("SELECT count(*) FROM quotes").fetchall() == [(1,)]  # kept for ever
    unknown = web.admin("POST", "/retention/apply", json={"dataset": "quotes"})
    assert (unknown.status_code, unknown.json()["error"]) == (
        422,
        "dataset: 'quotes' is not in MDS_RETENTION_DAYS",
    )


def test_a_check_publishes_the_level_at_once(web: Web, redis_url: str) -> None:
    told = web.admin("POST", "/backpressure/check").json()
    assert told["receivers"] == {"redis": "delivered"}
    assert (told["event"]["level"], told["event"]["queue_size"], told["event"]["capacity"]) == ("ok", 0, 10_000)
    backfill = told["backfill"]
    assert backfill["receivers"] == {"redis-backfill": "delivered"}
    assert (backfill["event"]["coordinator_id"], backfill["event"]["level"]) == (BACKFILL_QUEUE, "ok")
    for queue, of_lane in ((QUEUE, told), (BACKFILL_QUEUE, backfill)):
        with closing(RedisFeedbackPublisher(redis_url, queue=queue)) as publisher:
            last = publisher.last()
        assert last is not None
        assert (last.coordinator_id, last.ts) == (queue, of_lane["event"]["ts"])


def test_a_fuzzer_finds_no_server_error(web: Web) -> None:
    document = web.client.get("/openapi.json").json()
    assert {"/health", "/readyz", "/migrate", "/retention/apply", "/schema/version"} <= set(document["paths"])
    fuzzed = run(
        Path(PYTHON).with_name("schemathesis"),
        *("run", f"{web.url}/openapi.json", "--checks", "not_a_server_error", "--max-examples", "40"),
        *("--phases", "examples,coverage,fuzzing", "--header", f"Authorization: Bearer {TOKEN}"),
        *("--seed", "1", "--no-color", "--continue-on-failure"),
        directory=web.process.directory,
        timeout_s=300,
    )
    assert fuzzed.returncode == 0, fuzzed.stdout[-5_000:] + fuzzed.stderr
    assert "Traceback" not in web.log_text()
    assert json.dumps(document)


@on_redis
def test_dead_letters_are_listed_shown_replayed_and_purged(
    web: Web, worker: Worker, redis_url: str, database: psycopg.Connection[Any]
) -> None:
    good = {"provider": "p", "symbol": "S", "name": "n", "ts": 1_704_067_200}
    database.execute("ALTER TABLE signals ADD CONSTRAINT small CHECK (value < 10)")
    with Celery("producer", broker=redis_url, set_as_current=False) as producer:
        rows = [{**good, "value": 7}, {**good, "ts": 1_704_067_201, "value": 77}, {**good, "ts": "never", "value": 1}]
        producer.send_task("store.write", args=["signals", rows], queue="store.write")
    wait_until(lambda: len(web.admin("GET", "/dead-letters").json()["letters"]) == 2)
    letters = web.admin("GET", "/dead-letters").json()["letters"]
    assert [(letter["position"], letter["sqlstate"]) for letter in letters] == [(1, "23514"), (2, None)]
    assert not {"row", "defaults", "body"} & letters[0].keys()
    assert web.admin("GET", f"/dead-letters?after={letters[0]['id']}").json()["letters"] == letters[1:]
    assert web.admin("GET", "/dead-letters?dataset=bars").json()["letters"] == []
    assert web.admin("GET", "/dead-letters?limit=0").status_code == 422
    assert web.admin("GET", "/dead-letters?dataset=nothing").status_code == 422
    shown = web.admin("GET", f"/dead-letters/{letters[0]['id']}").json()
    assert json.loads(shown["row"])["value"] == 77
    assert web.admin("GET", "/dead-letters/4711").status_code == 404

    for path in ("/dead-letters/replay", "/dead-letters/purge"):
        bodies: tuple[dict[str, Any], ...] = (
            {},
            {"all": False},
            {"ids": []},
            {"ids": [0]},
            {"ids": [1], "all": True},
            {"dataset": "x"},
        )
        for body in bodies:
            assert web.admin("POST", path, json=body).status_code == 422, body
    database.execute("ALTER TABLE signals DROP CONSTRAINT small")
    assert web.admin("POST", "/dead-letters/replay", json={"all": True}).json() == {"sent": 2}
    wait_until(lambda: len(web.admin("GET", "/dead-letters").json()["letters"]) == 1)
    stored = "SELECT value FROM signals ORDER BY value"
    assert database.execute(stored).fetchall() == [(7.0,), (77.0,)]
    signals: dict[str, Any] = {"dataset": "signals"}
    assert web.admin("GET", "/dead-letters").json()["count"] == 1
    assert web.admin("POST", "/dead-letters/purge", json=signals).status_code == 422
    refused = web.admin("POST", "/dead-letters/purge", json=signals | {"expected": 2})
    assert (refused.status_code, refused.json()) == (
        409,
        {"error": "expected: 2, but 1 are selected; no letter was deleted", "count": 1},
    )
    assert web.admin("POST", "/dead-letters/purge", json=signals | {"expected": 1}).json() == {"purged": 1}
    assert web.admin("GET", "/dead-letters").json() == {"count": 0, "letters": []}
    assert "never" not in web.log_text()
