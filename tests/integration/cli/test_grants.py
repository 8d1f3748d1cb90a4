"""The rights of `mds grants`: each process works with them, and can do nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from support.processes import PYTHON, mds, run, running
from support.rights import FORBIDDEN
from support.waiting import wait_until
from support.web import serving

from market_data_store.local import EmbeddedServer, start_postgres

pytestmark = pytest.mark.slow

ROLES = ("worker", "web", "monitor", "operator", "reader")
#: The first is written, the second replaces it, and of the third a letter is made.
PROGRAM = """
from market_data_store.app import app
from market_data_store import StoreClient
row = {"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9, "value": 1.0}
for value in (1.0, 2.0):
    with StoreClient() as client:
        client.write("signals", [{**row, "value": value}])
app.send_task("store.write", args=["signals", [{**row, "value": "x"}]], queue="store.write")
"""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Migrated by its owner, with the roles."""
    directory = tmp_path_factory.mktemp("granted")
    with start_postgres(directory / "postgres") as server:
        assert mds(directory, "migrate", DATABASE_URL=server.url).returncode == 0
        with psycopg.connect(server.url, autocommit=True) as connection:
            for role in ROLES:
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(f"mds_{role}")))
            for _ in range(2):
                printed = mds(directory, "grants", DATABASE_URL=server.url)
                assert printed.returncode == 0, printed
                connection.execute(printed.stdout.encode())
        yield server


def as_role(server: EmbeddedServer, role: str) -> str:
    return server.url.replace("postgres@", f"mds_{role}@")


def test_every_process_works_with_its_rights(postgres: EmbeddedServer, redis_url: str, tmp_path: Path) -> None:
    worker = (PYTHON, "-m", "celery", "-A", "market_data_store.app", "worker", "--loglevel=INFO", "--concurrency=1")
    servers = {"BROKER_URL": redis_url, "DATABASE_URL": as_role(postgres, "worker")}
    with ExitStack() as stack:
        owner = stack.enter_context(psycopg.connect(postgres.url, autocommit=True))
        process = stack.enter_context(running(*worker, directory=tmp_path, environment=servers))
        sent = run(PYTHON, "-c", PROGRAM, directory=tmp_path, environment={"BROKER_URL": redis_url})
        assert sent.returncode == 0, sent
        written = "SELECT FROM signals, dead_letters WHERE value = 2.0"
        wait_until(lambda: owner.execute(written).rowcount == 1, process.said, timeout_s=60)
        operator = {**servers, "DATABASE_URL": as_role(postgres, "operator")}
        rows = tmp_path / "rows.csv"
        rows.write_text("ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n")
        out = os.fspath(tmp_path / "out.csv")
        for arguments in (
            ("load", str(rows), "--dataset", "signals"),
            ("jobs",),
            ("status",),
            ("dead-letters", "list"),
            ("export", "signals", out),
        ):
            done = mds(tmp_path, *arguments, **operator)
            assert done.returncode == 0, (done, process.said())
        rows.write_text("ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n2024-01-02T00:00:00Z,A,p,n,x\n")
        rejected = mds(tmp_path, "load", str(rows), "--dataset", "signals", **operator)
        assert (rejected.returncode, "could not be noted" in rejected.stdout) == (1, False), rejected
        web = {"DATABASE_URL": as_role(postgres, "web"), "MDS_RETENTION_DAYS": "signals=1"}
        with serving(tmp_path, **{**servers, **web}) as page:
            wait_until(lambda: page.client.get("/readyz").status_code == 200, page.log_text, timeout_s=30)
            counted = page.admin("POST", "/retention/apply", json={"dry_run": True}).json()
            applied = page.admin("POST", "/retention/apply", json={"expected": counted["expired"]})
            assert (applied.status_code, owner.execute("SELECT FROM signals").rowcount) == (200, 0), applied.text
            assert page.admin("POST", "/dead-letters/purge", json={"all": True, "expected": 2}).json() == {"purged": 2}
        assert "rmission denied" not in process.text()


@pytest.mark.parametrize("role", ROLES)
def test_no_role_changes_what_a_table_is(postgres: EmbeddedServer, role: str) -> None:
    with psycopg.connect(as_role(postgres, role), autocommit=True) as connection:
        for statement in FORBIDDEN:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        assert connection.execute("SELECT FROM signals").rowcount >= 0
        if role != "worker":
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("UPDATE signals SET value = 0")
        if role == "reader":
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT FROM dead_letters")
