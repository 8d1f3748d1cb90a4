"""The passwords that the store makes: they let nobody else in, and data that were made without are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from stat import S_IMODE
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from support.processes import PYTHON, run

from market_data_store.errors import ConfigurationError, ServerStartError
from market_data_store.local import EmbeddedServer, start_postgres, start_valkey
from market_data_store.local.passwords import Passwords, passwords_in

#: Connects without the password, with another, and with the right one; prints what was let in.
CALLER = """
import sys, psycopg, redis
postgres, valkey = sys.argv[1:]
for url in (postgres, postgres.replace("@", ":wrong@")):
    try:
        psycopg.connect(url, connect_timeout=5).close()
        print("Postgres let me in")
    except psycopg.OperationalError:
        pass
for url in (valkey, valkey.replace("://", "://:wrong@")):
    try:
        redis.Redis.from_url(url).dbsize()
        print("Valkey let me in")
    except redis.AuthenticationError:
        pass
"""


def without_password(url: str, user: str = "") -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}{parts.hostname}:{parts.port}").geturl()


def assert_closed(postgres: EmbeddedServer, valkey: EmbeddedServer, directory: Path) -> None:
    urls = (without_password(postgres.url, "postgres@"), without_password(valkey.url))
    done = run(PYTHON, "-c", CALLER, *urls, directory=directory)
    assert (done.returncode, done.stdout) == (0, ""), done


def write_into(postgres: EmbeddedServer, valkey: EmbeddedServer) -> None:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    with redis.Redis.from_url(valkey.url) as client:
        client.set("kept", "1")


def assert_kept(postgres: EmbeddedServer, valkey: EmbeddedServer) -> None:
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT value FROM kept").fetchall() == [(1,)]
    with redis.Redis.from_url(valkey.url) as client:
        assert client.get("kept") == b"1"


@pytest.fixture
def made(tmp_path: Path) -> Passwords:
    return passwords_in(tmp_path)


@pytest.mark.slow
def test_servers_with_passwords_let_nobody_else_in(made: Passwords, tmp_path: Path) -> None:
    for write_or_assert in (write_into, assert_kept):
        with (
            start_postgres(tmp_path / "postgres", password=made.postgres) as postgres,
            start_valkey(tmp_path / "valkey", password=made.valkey) as valkey,
        ):
            write_or_assert(postgres, valkey)
            assert_closed(postgres, valkey, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("end", [EmbeddedServer.stop, lambda server: server.process.kill()], ids=["stopped", "killed"])
def test_data_that_were_made_without_passwords_are_kept_and_get_them(
    end: Callable[[EmbeddedServer], None], made: Passwords, tmp_path: Path
) -> None:
    with start_postgres(tmp_path / "postgres") as postgres, start_valkey(tmp_path / "valkey") as valkey:
        write_into(postgres, valkey)
        end(postgres)
    with (
        start_postgres(tmp_path / "postgres", password=made.postgres) as postgres,
        start_valkey(tmp_path / "valkey", password=made.valkey) as valkey,
    ):
        assert_kept(postgres, valkey)
        assert_closed(postgres, valkey, tmp_path)


@pytest.mark.slow
def test_lost_passwords_are_replaced(made: Passwords, tmp_path: Path) -> None:
    with start_postgres(tmp_path / "postgres", password=made.postgres) as postgres:
        old = postgres.url
    made.path.unlink()
    other = passwords_in(tmp_path)
    assert other.postgres != made.postgres
    with start_postgres(tmp_path / "postgres", password=other.postgres) as postgres:
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(old.replace(str(urlsplit(old).port), str(postgres.port)))


def test_no_other_file_and_no_command_line_has_a_password(made: Passwords, tmp_path: Path) -> None:
    with (
        start_postgres(tmp_path / "postgres", password=made.postgres) as postgres,
        start_valkey(tmp_path / "valkey", password=made.valkey) as valkey,
    ):
        commands = [Path(f"/proc/{server.pid}/cmdline").read_text() for server in (postgres, valkey)]
        environments = [Path(f"/proc/{server.pid}/environ").read_text() for server in (postgres, valkey)]
        for text in (*commands, *environments):
            assert made.postgres not in text
            assert made.valkey not in text
    for path in (path for path in tmp_path.rglob("*") if path.is_file() and path != made.path):
        content = path.read_bytes()
        assert made.postgres.encode() not in content, path
        assert made.valkey.encode() not in content, path


def test_the_file_is_for_its_owner_only_and_the_passwords_stay(made: Passwords, tmp_path: Path) -> None:
    assert S_IMODE(made.path.stat().st_mode) == 0o600
    assert passwords_in(tmp_path) == made
    assert len({made.postgres, made.valkey, made.admin_token, made.flower.partition(":")[2]}) == 4
    assert all(secret not in repr(made) for secret in (made.postgres, made.valkey, made.admin_token, made.flower))


def test_a_file_that_lacks_one_keeps_the_others(made: Passwords, tmp_path: Path) -> None:
    lines = made.path.read_text().splitlines()
    made.path.write_text("\n".join(line for line in lines if not line.startswith("ADMIN_TOKEN")))
    completed = passwords_in(tmp_path)
    assert (completed.postgres, completed.flower) == (made.postgres, made.flower)
    assert completed.admin_token not in ("", made.admin_token)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_passwords_of_another_user_are_not_taken(made: Passwords, tmp_path: Path) -> None:
    os.chown(made.path, 13, 13)
    with pytest.raises(ConfigurationError, match="passwords: belongs to user 13"):
        passwords_in(tmp_path)


@pytest.mark.slow
def test_a_password_that_postgres_does_not_take_is_one_error(tmp_path: Path) -> None:
    with start_postgres(tmp_path / "postgres"):
        pass
    (tmp_path / "postgres/cluster/PG_VERSION").write_text("9.6\n")
    with pytest.raises(ServerStartError, match="did not start"):
        start_postgres(tmp_path / "postgres", password="p" * 43)
