"""Passwords of odd characters in URLs: every library reads the same one, and no error shows it."""

from __future__ import annotations

from contextlib import closing
from urllib.parse import unquote

import httpx
import kombu
import pytest
from flower.utils.broker import BrokerBase  # type: ignore[import-untyped]
from psycopg.conninfo import conninfo_to_dict
from redis.connection import ConnectionPool
from support.passwords import PASSWORDS, WORST, encoded, shows

from market_data_store.connections.urls import (
    accepted_broker_url,
    accepted_http_url,
    accepted_management_url,
    accepted_postgres_url,
    accepted_redis_url,
    postgres_url,
    without_credentials,
    without_password,
)
from market_data_store.errors import ConfigurationError

ALL = [*PASSWORDS, WORST]


def read_by_kombu(url: str) -> tuple[object, object, object]:
    with kombu.Connection(url) as connection:
        shown = connection.as_uri(include_password=True)  # what Flower reads
        assert BrokerBase(shown).password == connection.password
        return connection.userid, connection.password, connection.hostname


def read_by_redis(url: str) -> dict[str, object]:
    with closing(ConnectionPool.from_url(url)) as pool:
        names = ("username", "password", "host", "port", "db")
        return {name: pool.connection_kwargs[name] for name in names if name in pool.connection_kwargs}


def read_by_libpq(url: str) -> tuple[object, object, object]:
    found = conninfo_to_dict(url)
    return found.get("user"), found["password"], found["host"]


def passwords_of(url: str) -> list[object]:
    """What each library reads from a broker's URL, ours being first."""
    found = [read_by_kombu(url)[1]]
    return [*found, read_by_redis(url)["password"]] if url.startswith("redis") else found


def test_there_are_forty_passwords() -> None:
    assert len(set(PASSWORDS)) == len(PASSWORDS) >= 40


@pytest.mark.parametrize("password", ALL)
def test_every_library_reads_the_password_that_was_encoded(password: str) -> None:
    name = f"user{password}"
    there = f"{encoded(name)}:{encoded(password)}@127.0.0.1"
    redis = accepted_broker_url(f"redis://{there}:6379/3")
    assert read_by_kombu(redis) == (name, password, "127.0.0.1")
    assert read_by_redis(redis) == {"username": name, "password": password, "host": "127.0.0.1", "port": 6379, "db": 3}
    assert read_by_kombu(accepted_broker_url(f"amqp://{there}:5672//")) == (name, password, "127.0.0.1")
    assert read_by_libpq(accepted_postgres_url(f"postgres://{there}/db")) == (name, password, "127.0.0.1")
    management = httpx.URL(accepted_management_url(f"http://{there}:15672"))
    assert (management.username, management.password) == (name, password)
    assert BrokerBase(str(management)).password == password


@pytest.mark.parametrize("password", ALL)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "amqp", "postgresql"])
def test_a_password_that_was_not_encoded_is_read_or_refused_without_showing_it(scheme: str, password: str) -> None:
    accepted = accepted_postgres_url if scheme == "postgresql" else accepted_broker_url
    for user in ("", "me"):
        given = f"{scheme}://{user}:{password}@127.0.0.1:6379/0"
        assert not shows(without_password(given), password)
        try:
            url = accepted(given)
        except ValueError as error:
            said = str(error)
        else:
            said = ""
        if said:
            assert "percent-encoded" in said
            assert not shows(said, password)
            continue
        assert not shows(without_password(url), password)
        # A percent sign and two digits are a code wherever they stand; nobody can tell them from a password's.
        meant = unquote(password)
        read = [read_by_libpq(url)[1]] if scheme == "postgresql" else passwords_of(url)
        assert read == [meant] * len(read)
        assert meant == password or "%2F" in password


@pytest.mark.parametrize("odd", "#?/")
def test_what_ends_a_host_is_refused(odd: str) -> None:
    for accepted in (accepted_broker_url, accepted_redis_url):
        with pytest.raises(ValueError, match=r"must be percent-encoded .*# as %23"):
            accepted(f"redis://:Zq1{odd}Xv9@h:1/0")
    with pytest.raises(ConfigurationError, match=r"^postgresql://\*\*\*@h/d has a character that must be percent-en"):
        postgres_url(f"postgresql://u:Zq1{odd}Xv9@h/d")


@pytest.mark.parametrize("odd", "[]@: %")
def test_what_can_only_belong_to_the_password_is_encoded(odd: str) -> None:
    assert accepted_broker_url(f"redis://:a{odd}b@h:1/0") == f"redis://:a{encoded(odd)}b@h:1/0"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///db?host=/tmp",
        "postgresql://user@%2Ftmp:5433/db",
        "postgresql://u:p@h1:5432,h2:5433,[::1]:5434/db?target_session_attrs=read-write",
        "postgresql://u:p@[fe80::1%25eth0]/db",
    ],
)
def test_other_spellings_of_libpq_are_left_as_they_are(url: str) -> None:
    if url == "postgresql://":
        with pytest.raises(ValueError, match="is not a postgresql:// URL"):
            accepted_postgres_url(url)
    else:
        assert accepted_postgres_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://user@h",
        "redis://:@h",
        "rediss://:p@[::1]:6380/1?ssl_ca_certs=/a.pem",
        "amqp://u:p@[::1]:5672//",
        "amqp://u:p@h1/a%2Fb?heartbeat=5;amqp://u:p@h2/a%2Fb",
        "sentinel://:p@h1:26379;sentinel://:p@h2:26379",
    ],
)
def test_other_urls_of_brokers_are_left_as_they_are(url: str) -> None:
    assert accepted_broker_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["redis://::1:6379/0", "redis://h:port/0", "redis://h:1:2", "redis://[::1/0", "redis://a b/0", "redis://h:123456"],
)
def test_a_host_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"^has no host and port such as redis\.example\.com:6379 or \[::1\]:6379"):
        accepted_broker_url(url)


@pytest.mark.parametrize("code", ["%00", "%ff", "%c3"])
def test_a_password_that_no_server_takes_is_refused(code: str) -> None:
    for accepted, url in ((accepted_postgres_url, "postgresql"), (accepted_broker_url, "amqp")):
        with pytest.raises(ValueError, match=r"has a (user name|character)"):
            accepted(f"{url}://u:Zq1{code}@h/d")


def test_white_space_around_a_url_is_not_part_of_it() -> None:
    assert accepted_broker_url(" redis://h:1/0\n") == "redis://h:1/0"
    assert accepted_postgres_url("postgres://h/d\n") == "postgresql://h/d"


@pytest.mark.parametrize("url", ["h:1", "ftp://h", "http://", "http://h:port/", "http://[::1", "http://u:a/b@h/"])
def test_what_is_no_url_for_http_is_refused(url: str) -> None:
    for accepted in (accepted_http_url, accepted_management_url):
        with pytest.raises(ValueError, match=r"^is not an http:// or https:// URL"):
            accepted(url)


def test_an_endpoint_may_have_an_at_sign_in_its_path() -> None:
    assert accepted_http_url("https://h/@me/hook#x") == "https://h/@me/hook#x"


@pytest.mark.parametrize("scheme", ["amqp", "amqps", "pyamqp", "http"])
def test_feedback_needs_a_redis(scheme: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a redis://"):
        accepted_redis_url(f"{scheme}://h")


@pytest.mark.parametrize("password", ALL)
def test_user_and_password_are_split_off_for_a_library_that_logs_urls(password: str) -> None:
    url, auth = without_credentials(f"http://{encoded(password)}:{encoded(password)}@[::1]:15672/a?b=c")
    assert (url, auth) == ("http://[::1]:15672/a?b=c", (password, password))
    assert without_credentials("https://h/a") == ("https://h/a", None)
