"""The URLs of servers: how they are spelled, what is accepted, and how they are shown."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes, urlencode, urlsplit, urlunsplit

from market_data_store.errors import ConfigurationError

# A name, an IPv4 address, or an IPv6 address in brackets, and perhaps a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[^\[\]:@\s]*)(:\d{0,5})?")
_ENCODE = (
    "has a character that must be percent-encoded in the user name, the password or after the host "
    "(# as %23, % as %25, / as %2F, ? as %3F, @ as %40)"
)
#: What separates the hosts of one URL, in kombu's spelling. A `;` within a password is not followed by a scheme.
_NEXT_HOST = re.compile(r";(?=[a-z+]+://)")
_REDIS, _SENTINEL, _RABBITMQ = ("redis", "rediss"), ("sentinel", "sentinels"), ("amqp", "amqps", "pyamqp")


def scheme_of(url: str) -> str:
    """The scheme of a URL, of whose hosts all have the same."""
    return url.partition("://")[0]


def hosts_of(url: str) -> list[str]:
    """The URLs of the several hosts that a broker's URL may name, separated by `;`; one for most."""
    return _NEXT_HOST.split(url)


def is_redis(url: str) -> bool:
    """Whether the broker is a Redis, with Sentinel or without."""
    return scheme_of(url) in (*_REDIS, *_SENTINEL)


def is_sentinel(url: str) -> bool:
    """Whether a Redis is found by asking sentinels."""
    return scheme_of(url) in _SENTINEL


def is_rabbitmq(url: str) -> bool:
    """Whether the broker is a RabbitMQ."""
    return scheme_of(url) in _RABBITMQ


def canonical(url: str) -> str:
    """Return the URL with its user name and password percent-encoded in the one way that every library reads.

    kombu, Celery, redis-py, Flower and libpq each parse URLs by rules of their own, and show parts of a URL that they
    cannot read. What is ambiguous is refused: raises `ValueError`, which does not quote the URL.
    """
    return ";".join(map(_canonical, hosts_of(url.strip())))


def _canonical(url: str) -> str:
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after = rest[len(authority) :]
    if "@" in after or "#" in after:  # the authority ended within the password
        raise ValueError(_ENCODE)
    user, at, hosts = authority.rpartition("@")
    if not all(map(_HOST.fullmatch, re.split("[,;]", hosts))):
        raise ValueError("has no host and port such as redis.example.com:6379 or [::1]:6379, or it " + _ENCODE)
    name, colon, password = user.partition(":")
    return f"{scheme}://{_encoded(name)}{colon}{_encoded(password)}{at}{hosts}{after}"


def _encoded(text: str) -> str:
    # A percent sign that begins no code stands for itself.
    try:
        plain = unquote_to_bytes(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text)).decode()
        encoded = quote(plain, safe="")
    except UnicodeError:
        raise ValueError(_ENCODE) from None
    if "\0" in plain:  # no server takes it, and libpq's message quotes the password
        raise ValueError("has a user name or a password with the character %00")
    return encoded


def accepted_http_url(value: Any) -> Any:
    """Accept an http:// or https:// URL with a host; raises `ValueError` for another."""
    if not isinstance(value, str) or not value:
        return value
    try:
        found = urlsplit(value.strip())
        usable = found.scheme in ("http", "https") and found.hostname and found.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("is not an http:// or https:// URL, or it " + _ENCODE)
    return value.strip()


def accepted_management_url(value: Any) -> Any:
    """Accept the URL of RabbitMQ's HTTP API; raises `ValueError` for another."""
    return canonical(accepted_http_url(value)) if isinstance(value, str) and value else value


def accepted_postgres_url(value: Any) -> Any:
    """Accept the spellings of a PaaS and of SQLAlchemy for libpq's `postgresql://`; raises `ValueError` for another."""
    if not isinstance(value, str) or not value:
        return value
    scheme, _, rest = value.strip().partition("://")
    if scheme not in ("postgres", "postgresql", "postgresql+psycopg") or not rest:
        raise ValueError("is not a postgresql:// URL")
    return canonical(f"postgresql://{rest}")


def postgres_url(url: str) -> str:
    """The URL as libpq spells it; raises `ConfigurationError`."""
    try:
        return str(accepted_postgres_url(url))
    except ValueError as error:
        raise ConfigurationError(f"{without_password(url)} {error}") from None


def accepted_broker_url(value: Any) -> Any:
    """Accept the URL of a broker, or those of several hosts of one; raises `ValueError` for another."""
    if isinstance(value, str) and value:
        value = value.strip()
        schemes = {scheme_of(part) for part in hosts_of(value)}
        if "://" not in value or not schemes <= {*_REDIS, *_SENTINEL, *_RABBITMQ}:
            raise ValueError("is not a redis://, rediss://, sentinel://, sentinels://, amqp:// or amqps:// URL")
        value = canonical(value)
        if any(";" in part for part in hosts_of(value)) or len(schemes) > 1:
            raise ValueError("names several hosts, each of which must begin with the same scheme")
        if len(hosts_of(value)) > 1 and schemes <= {*_REDIS}:
            raise ValueError("names several hosts, which only sentinel:// and amqp:// may do")
    return value


def accepted_redis_url(value: Any) -> Any:
    """Accept the URL of a Redis; raises `ValueError` for another."""
    if isinstance(value, str) and value and not is_redis(value.strip()):
        raise ValueError("is not a redis://, rediss://, sentinel:// or sentinels:// URL")
    return accepted_broker_url(value)


def without_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return an http:// URL without user and password, and these two as they are, for a library that logs URLs."""
    parts = urlsplit(url)
    who, at, host = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(user), unquote(password)) if at else None


def with_verification(url: str, cert_reqs: str) -> str:
    """The URL of a Redis with TLS, with what is required of the server's certificate.

    For a URL without it, kombu requires nothing and Celery's result backend refuses to start; redis-py knows only two
    values. So each URL says it, in a spelling that all three read.
    """
    address, _, query = url.partition("?")
    if scheme_of(url) != "rediss":
        return url
    return f"{address}?{urlencode(verified(dict(parse_qsl(query)), cert_reqs))}"


def verified(options: dict[str, str], cert_reqs: str) -> dict[str, str]:
    """The options of TLS in a URL, with what is required of the certificate; raises `ValueError` for another word."""
    given = options.get("ssl_cert_reqs", cert_reqs).lower().removeprefix("cert_")
    if given not in ("required", "none"):
        raise ValueError("set ssl_cert_reqs to required or none")
    return {**options, "ssl_cert_reqs": given}


def without_password(url: str) -> str:
    """The URL as it may be shown to people: user and password replaced, without its query, which may hold secrets."""
    hosts = hosts_of(url)
    if len({"@" in host for host in hosts}) > 1:  # what looks like another host may be a part of a password
        return f"{scheme_of(url)}://***"
    return ";".join(map(_without_password, hosts))


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:  # libpq's keywords, say
        return "***"
    # Split at the last @, not by the rules for URLs: a password may contain characters that should have been escaped.
    user, at, host = rest.rpartition("@")
    return f"{scheme}://{'***@' if at else ''}{re.split('[?#]', host)[0]}" if user or not at else f"{scheme}://***"
