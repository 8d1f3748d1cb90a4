"""Settings: which variable wins, what is accepted, and that no error or log line shows a password."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import AliasChoices

from market_data_store import config
from market_data_store.config import Settings, resource
from market_data_store.connections.urls import without_password
from market_data_store.errors import ConfigurationError, MarketDataStoreError

Read = Callable[..., Settings]


def variables() -> Iterator[str]:
    for info in Settings.model_fields.values():
        assert isinstance(info.validation_alias, AliasChoices)
        yield from (str(choice) for choice in info.validation_alias.choices)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Read]:
    """Read the settings in an empty directory, with these variables alone."""
    monkeypatch.chdir(tmp_path)
    for name in variables():
        monkeypatch.delenv(name, raising=False)

    def read_with(**environment: str) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        config.settings.cache_clear()
        return config.settings()

    yield read_with
    config.settings.cache_clear()


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def test_every_setting_has_a_variable_a_default_and_no_usable_secret(read: Read) -> None:
    given = read()
    assert all(name.isupper() for name in variables())
    assert (given.database_url, given.admin_database_url, given.broker_url, given.redis_url) == ("", "", "", "")
    assert given.batch_rows == 5_000
    assert given.flush_interval_s == 0.05
    assert given.queue_capacity == 10_000
    assert given.max_message_bytes == 16 * 1024 * 1024


def test_the_retry_deadline_stays_below_the_soft_time_limit(read: Read) -> None:
    with pytest.raises(ConfigurationError, match="MDS_RETRY_DEADLINE_S"):
        read(MDS_RETRY_DEADLINE_S="60")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_the_spellings_of_a_postgres_url_become_one(read: Read, scheme: str) -> None:
    rest = "user:p%40ss@host:5433/db?sslmode=require"
    assert read(DATABASE_URL=f"{scheme}://{rest}").database_url == f"postgresql://{rest}"


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "secret", "postgresql:", "postgresql://", "postgresql+asyncpg://u:secret@h/d"]
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "ADMIN_DATABASE_URL"])
def test_a_url_that_is_not_for_postgres_is_one_line_without_its_value(read: Read, name: str, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(**{name: url})
    assert str(caught.value) == f"{name}: is not a postgresql:// URL"


def test_the_first_broker_variable_that_is_set_wins(read: Read) -> None:
    assert read(REDIS_URL="redis://r").broker_url == "redis://r"
    assert read(CLOUDAMQP_URL="amqps://c").broker_url == "amqps://c"
    assert read(BROKER_URL="redis://b").broker_url == "redis://b"
    assert read(BROKER_URL="").broker_url == "amqps://c"
    assert read().redis_url == "redis://r"


def test_a_redis_that_a_platform_offers_in_two_ways_is_used_with_tls(read: Read) -> None:
    given = read(REDIS_URL="redis://r:1", REDIS_TLS_URL="rediss://r:2")
    assert (given.broker_url, given.redis_url) == ("rediss://r:2?ssl_cert_reqs=required",) * 2
    given = read(CLOUDAMQP_URL="amqps://c")
    assert (given.broker_url, given.redis_url) == ("amqps://c", "rediss://r:2?ssl_cert_reqs=required")
    given = read(BROKER_URL="redis://b")
    assert (given.broker_url, given.redis_url) == ("redis://b", "rediss://r:2?ssl_cert_reqs=required")


@pytest.mark.parametrize("scheme", ["redis", "amqp", "amqps", "pyamqp"])
def test_these_brokers_are_accepted(read: Read, scheme: str) -> None:
    assert read(BROKER_URL=f"{scheme}://h").broker_url == f"{scheme}://h"


def test_a_redis_with_tls_has_its_certificate_verified_unless_told_otherwise(read: Read) -> None:
    assert read(REDIS_URL="rediss://:p%2Fw@h:1").broker_url == "rediss://:p%2Fw@h:1?ssl_cert_reqs=required"
    assert read(REDIS_URL="rediss://h/0?ssl_cert_reqs=CERT_NONE").broker_url == "rediss://h/0?ssl_cert_reqs=none"
    by_url = read(REDIS_URL="rediss://h?ssl_ca_certs=%2Fa.pem&x=1")
    assert by_url.redis_url == "rediss://h?ssl_ca_certs=%2Fa.pem&x=1&ssl_cert_reqs=required"
    assert by_url.broker_tls == {"ssl_ca_certs": "/a.pem", "ssl_cert_reqs": "required"}
    assert read(REDIS_URL="rediss://h", MDS_REDIS_SSL_CERT_REQS="none").broker_tls == {"ssl_cert_reqs": "none"}
    assert read(REDIS_URL="redis://h?ssl_cert_reqs=none").broker_tls == {}
    with pytest.raises(ConfigurationError, match="REDIS_URL: set ssl_cert_reqs to required or none"):
        read(REDIS_URL="rediss://h?ssl_cert_reqs=maybe")


def test_several_hosts_are_accepted_of_the_brokers_that_have_them(read: Read) -> None:
    url = "amqp://u:p@h1:1//;amqp://u:p@h2//"
    assert read(BROKER_URL=url).broker_url == url
    for wrong, reason in (
        ("redis://h1;redis://h2", "only sentinel:// and amqp:// may do"),
        ("amqp://h1;redis://h2", "must begin with the same scheme"),
        ("amqp://h1;sqs://h2", "is not a redis://"),
        ("amqp://u:secret@h1;h2", "must begin with the same scheme"),
    ):
        with pytest.raises(ConfigurationError, match=reason) as caught:
            read(BROKER_URL=wrong)
        assert "secret" not in str(caught.value)


def test_a_url_of_sentinels_is_completed_by_the_variables(read: Read) -> None:
    variables = {
        "MDS_SENTINEL_MASTER": "m",
        "MDS_SENTINEL_PASSWORD": "s@w",
        "BROKER_URL": "sentinel://:p%2Fw@h:1;sentinel://i/2",
    }
    given = read(**variables)
    assert given.broker_url == given.feedback_url
    assert given.broker_url == "sentinel://:p%2Fw@h:1/2;sentinel://:p%2Fw@i/2?master_name=m&sentinel_password=s%40w"
    assert without_password(given.broker_url) == "sentinel://***@h:1/2;sentinel://***@i/2"
    assert read(BROKER_URL="sentinel://h?master_name=other").broker_url.startswith("sentinel://h/0?master_name=other&")
    assert given.broker_tls == {}
    tls = read(BROKER_URL="sentinels://h?ssl_ca_certs=%2Fa.pem", MDS_REDIS_SSL_CERT_REQS="none").broker_tls
    assert tls == {"ssl_ca_certs": "/a.pem", "ssl_cert_reqs": "none"}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sentinel://:secret@h", "BROKER_URL: set MDS_SENTINEL_MASTER to the name"),
        ("sentinel://:secret@h/x?master_name=m", "BROKER_URL: must end with the number of a database"),
        ("sentinels://:secret@h?master_name=m&ssl_cert_reqs=maybe", "BROKER_URL: set ssl_cert_reqs to"),
    ],
)
def test_a_url_of_sentinels_that_lacks_something_is_one_line(read: Read, url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        read(BROKER_URL=url)
    assert "secret" not in str(caught.value)


def test_celerys_command_does_not_use_the_broker_as_it_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "sentinels://h")
    monkeypatch.setenv("CELERY_BROKER_URL", "sentinels://h")  # as by the command, for its option
    config.undo_celerys_broker_option()
    assert "CELERY_BROKER_URL" not in os.environ
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://another")
    config.undo_celerys_broker_option()
    assert os.environ["CELERY_BROKER_URL"] == "redis://another"


def test_it_listens_for_all_only_where_a_paas_gives_a_port(read: Read) -> None:
    assert read().bind_host == "127.0.0.1"
    assert read(PORT="5000").bind_host == "0.0.0.0"  # noqa: S104
    assert read(MDS_ENV="development").bind_host == "127.0.0.1"
    assert read(MDS_HOST="::1").bind_host == "::1"


def test_a_broker_that_is_not_supported_is_one_line_without_its_value(read: Read) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(BROKER_URL="sqs://key:secret@")
    assert str(caught.value).startswith("BROKER_URL: is not a redis://")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["CLOUDAMQP_URL", "REDIS_URL"])
def test_a_wrong_broker_url_is_reported_under_the_variable_that_holds_it(read: Read, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(**{name: "sqs://"})
    assert name in str(caught.value)
    assert "BROKER_URL" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MDS_BATCH_ROWS", "many"),
        ("MDS_BATCH_ROWS", "0"),
        ("MDS_BATCH_ROWS", "1e3"),
        ("MDS_FLUSH_INTERVAL_S", "-1"),
        ("MDS_FLUSH_INTERVAL_S", "nan"),
        ("MDS_RETRY_DEADLINE_S", "inf"),
        ("MDS_PREFETCH_MESSAGES", "0"),
        ("MDS_MAX_MESSAGE_BYTES", "1"),
        ("MDS_QUEUE_CAPACITY", "0"),
        ("MDS_VISIBILITY_TIMEOUT_S", "-5"),
    ],
)
def test_a_wrong_value_is_one_line_with_variable_value_and_reason(read: Read, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(**{name: value})
    assert str(caught.value).startswith(f"{name}={value!r}: input should be ")
    assert "\n" not in str(caught.value)


def test_every_wrong_value_is_named_at_once(read: Read) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(MDS_BATCH_ROWS="x", MDS_QUEUE_CAPACITY="y", DATABASE_URL="z")
    assert all(name in str(caught.value) for name in ("MDS_BATCH_ROWS='x'", "MDS_QUEUE_CAPACITY='y'", "DATABASE_URL:"))


def test_a_configuration_error_is_an_error_of_this_package(read: Read) -> None:
    with pytest.raises(MarketDataStoreError):
        read(MDS_BATCH_ROWS="x")


def test_a_variable_that_is_empty_counts_as_not_set(read: Read) -> None:
    assert read(MDS_BATCH_ROWS="", DATABASE_URL="").batch_rows == 5_000


def test_a_missing_url_is_an_error_that_says_how_to_set_it(read: Read) -> None:
    given = read()
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set; set it to postgresql://user:password@host"):
        given.require_database_url()
    with pytest.raises(ConfigurationError, match="BROKER_URL is not set; set it to redis://"):
        given.require_broker_url()
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        _ = given.migration_url


def test_migrations_use_the_admin_url_where_there_is_one(read: Read) -> None:
    assert read(DATABASE_URL="postgres://user@h/d").migration_url == "postgresql://user@h/d"
    assert read(ADMIN_DATABASE_URL="").migration_url == "postgresql://user@h/d"
    assert read(ADMIN_DATABASE_URL="postgres://admin@h/d").migration_url == "postgresql://admin@h/d"
    assert read().require_database_url() == "postgresql://user@h/d"


def test_a_dotenv_file_is_read_and_the_environment_wins(read: Read) -> None:
    write(".env", 'DATABASE_URL="postgres://file@h/d"\nMDS_BATCH_ROWS=7\nUNRELATED=x\n')
    assert read().database_url == "postgresql://file@h/d"
    assert read().batch_rows == 7
    assert read(MDS_BATCH_ROWS="8").batch_rows == 8


def test_the_servers_of_a_running_mds_up_are_found_and_everything_else_wins_over_them(read: Read) -> None:
    write(".mds/env", "DATABASE_URL=postgresql://embedded/d\nBROKER_URL=redis://embedded\nMDS_BATCH_ROWS=5\n")
    assert read().database_url == "postgresql://embedded/d"
    assert read().batch_rows == 5_000  # only the servers are taken from there
    write(".env", "MDS_BATCH_ROWS=6\n")
    assert read().batch_rows == 6
    assert read(DATABASE_URL="postgresql://mine/d").database_url == "postgresql://mine/d"
    assert read().broker_url == "redis://embedded"


def test_the_owner_of_mds_up_decides_without_the_servers_of_an_earlier_run(read: Read) -> None:
    write(".mds/env", "DATABASE_URL=postgresql://embedded/d\n")
    read()
    assert config.settings_without_local_servers().database_url == ""


def test_mds_home_says_where_the_servers_of_mds_up_are_found(read: Read) -> None:
    write("elsewhere/env", "BROKER_URL=redis://embedded\n")
    assert read(MDS_HOME="elsewhere").broker_url == "redis://embedded"


def test_an_empty_variable_leaves_what_the_file_says(read: Read) -> None:
    write(".env", "BROKER_URL=redis://file\nMDS_BATCH_ROWS=6\n")
    assert read(BROKER_URL="", MDS_BATCH_ROWS="").broker_url == "redis://file"
    assert read().batch_rows == 6


def test_a_dotenv_file_that_is_no_text_is_a_configuration_error(read: Read) -> None:
    Path(".env").write_bytes(b"MDS_BATCH_ROWS=\xff\n")
    with pytest.raises(ConfigurationError):
        read()


def test_the_settings_are_read_once(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read()
    monkeypatch.setenv("MDS_BATCH_ROWS", "9")
    assert config.settings() is first


def test_the_settings_cannot_be_changed(read: Read) -> None:
    with pytest.raises(ValueError, match="frozen"):
        read().batch_rows = 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:secret@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql://user:sec@ret@host/db", "postgresql://***@host/db"),
        ("postgresql://user@host/db?password=secret&sslkey=secret", "postgresql://***@host/db"),
        ("postgresql://host/db#secret", "postgresql://host/db"),
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        ("amqp://user:secret@host//", "amqp://***@host//"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("amqp://u:secret@h1//;amqp://u:se;cret@h2//?x=secret", "amqp://***@h1//;amqp://***@h2//"),
        ("amqp://user:secret;x://secret@host//", "amqp://***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        # What people set, though RFC 3986 wants %2F; libpq and kombu then complain of the host.
        pytest.param("postgresql://user:/secret@host/db", id="slash"),
        # Celery's brokers to fall back on.
        pytest.param("sentinel://:secret@host:1;sentinel://:secret@host2:2", id="several-sentinels"),
        pytest.param("amqp://user:secret@host//;amqp://user:secret@host2//", id="several-brokers"),
        pytest.param("redis://user:[secret@host/0", id="bracket"),
        pytest.param("host=localhost password=secret", id="keywords"),
    ],
)
def test_no_part_of_a_password_is_shown_whatever_the_url_looks_like(url: str) -> None:
    assert "secret" not in without_password(url)


@pytest.mark.parametrize("name", ["alembic.ini", "migrations/env.py", "celeryconfig.py"])
def test_the_packages_files_are_found_in_a_checkout(name: str) -> None:
    assert resource(name).is_file()
