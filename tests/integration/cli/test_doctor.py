"""`mds doctor`, `mds doctor --bundle` and `mds release`: what they print, their exit codes, and what they change."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import psycopg
import pytest
from celery import Celery
from support.databases import Connection
from support.doctor import doctor, wrong
from support.processes import mds
from support.waiting import wait_until
from support.web import FLOWER, TOKEN
from support.workers import working

from market_data_store.local import free_port

SECRET = "pl4nted-s3cret"


def test_a_wrong_setting_is_one_line_and_nothing_else_is_asked(tmp_path: Path) -> None:
    done = mds(tmp_path, "doctor", MDS_BATCH_ROW="1", DATABASE_URL=f"mysql://u:{SECRET}@h/d")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].split(maxsplit=2) == [
        *("error", "settings.values"),
        "MDS_BATCH_ROW: is not a setting; did you mean MDS_BATCH_ROWS?",
    ]
    assert lines[-2].split()[:2] == ["skipped", "servers"]
    assert lines[-1].startswith("2 errors, ")
    assert SECRET not in done.stdout + done.stderr


def test_servers_that_are_away_are_errors_and_the_rest_is_skipped(tmp_path: Path) -> None:
    port = free_port()
    urls = {"DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:{port}/d", "BROKER_URL": f"redis://127.0.0.1:{port}"}
    found = doctor(tmp_path, ADMIN_TOKEN=TOKEN, **FLOWER, **urls)
    assert wrong(found) == dict.fromkeys(["database.reachable", "admin.reachable", "broker.reachable"], "error")
    for finding in (each for findings in found.values() for each in findings):
        assert finding.keys() == {"check", "severity", "message", "remedy"}
        assert finding["severity"] in ("ok", "warning", "error", "skipped")
        assert bool(finding["remedy"]) == (finding["severity"] in ("warning", "error"))
        assert finding["message"].startswith("skipped: ") == (finding["severity"] == "skipped")
    assert found["database.tables"][0]["message"] == "skipped: database.reachable has failed"


def test_a_release_checks_and_then_migrates(unmigrated_url: str, redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    with psycopg.connect(unmigrated_url, autocommit=True) as database:
        migrated = "SELECT FROM pg_tables WHERE schemaname = 'public'"
        refused = mds(
            tmp_path, "release", "--wait", "0", DATABASE_URL=unmigrated_url, BROKER_URL=f"redis://127.0.0.1:{port}"
        )
        assert refused.returncode == 1
        assert refused.stdout.split(maxsplit=2)[:2] == ["error", "broker.reachable"]
        assert refused.stderr == "error: this cannot be deployed; nothing was changed\n"
        assert database.execute(migrated).rowcount == 0
        done = mds(tmp_path, "release", DATABASE_URL=unmigrated_url, BROKER_URL=redis_url)
        assert (done.returncode, done.stdout.startswith("revision none -> ")) == (0, True), done
        again = mds(tmp_path, "release", ADMIN_DATABASE_URL=unmigrated_url)  # as in deploy/compose.yaml
        assert again.returncode == 0, again
        assert mds(tmp_path, "release", MDS_BATCH_ROW="1", DATABASE_URL=unmigrated_url).returncode == 2


@pytest.mark.slow
def test_a_bundle_has_no_secret_in_any_of_its_files(
    database_url: str, database: Connection, redis_url: str, tmp_path: Path
) -> None:
    secrets = [f"{SECRET}-{number}" for number in range(8)]
    token, status_token, flower, endpoint, management, sentinel, of_database, of_redis = secrets
    database.execute(f"CREATE ROLE planted SUPERUSER LOGIN PASSWORD '{of_database}'".encode())
    servers = {
        "DATABASE_URL": database_url.replace("postgres@", f"planted:{of_database}@"),
        "BROKER_URL": redis_url,
        "REDIS_URL": redis_url.replace("redis://", f"redis://default:{of_redis}@"),
    }
    given = {
        "ADMIN_TOKEN": token,
        "MDS_STATUS_TOKEN": status_token,
        "FLOWER_BASIC_AUTH": f"operator:{flower}",
        "MDS_FB_HTTP_ENDPOINT": f"https://hooks.example.com/{endpoint}",
        "MDS_RABBITMQ_MANAGEMENT_URL": f"http://guest:{management}@127.0.0.1:{free_port()}",
        "MDS_SENTINEL_PASSWORD": sentinel,
    }
    path = tmp_path / "support.zip"
    try:
        with working(tmp_path, **servers), Celery(broker=redis_url, set_as_current=False) as app:
            row = {"provider": "p", "symbol": SECRET, "name": "n", "ts": 1.7e9, "value": SECRET, "password": SECRET}
            app.send_task("store.write", args=["signals", [row]], queue="store.write")
            wait_until(lambda: database.execute("SELECT FROM dead_letters").rowcount == 1, "the letter")
            done = mds(tmp_path, "doctor", "--bundle", str(path), **servers, **given)
        assert f"{path}: doctor.json" in done.stdout
        assert SECRET not in done.stdout + done.stderr
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with zipfile.ZipFile(path) as bundle:
            texts = {name: bundle.read(name).decode() for name in bundle.namelist()}
    finally:
        database.execute("DROP OWNED BY planted; DROP ROLE planted")
    assert [name for name, text in texts.items() if SECRET in text] == []
    found = {name: json.loads(text) for name, text in texts.items()}
    assert found.keys() == {
        *("doctor.json", "packages.json", "machine.json", "settings.json", "tables.json", "status.json"),
        *("workers.json", "events.json"),
    }
    assert found["settings.json"]["ADMIN_TOKEN"] == "***"
    assert found["settings.json"]["MDS_BATCH_ROWS"] == 5_000
    assert found["tables.json"]["bars_ohlcv"]["close"] == "double precision"
    assert found["packages.json"]["celery"]
    assert found["workers.json"]["answers"][0]["version"] == found["doctor.json"]["version"]
    assert found["workers.json"]["answers"][0]["processes"] == 2
    assert found["status.json"]["dead_letters"]["total"] == 1
    # Of settings that are wrong there is what can be told without them.
    wrong_one = mds(tmp_path, "doctor", "--json", "--bundle", str(path), MDS_X="1")
    assert json.loads(wrong_one.stdout)["result"] == "error"
    with zipfile.ZipFile(path) as bundle:
        assert set(bundle.namelist()) == {"doctor.json", "packages.json", "machine.json"}
    refused = mds(tmp_path, "doctor", "--bundle", str(tmp_path / "no" / "such.zip"), MDS_X="1")
    assert "No such file or directory; name another file" in refused.stderr
