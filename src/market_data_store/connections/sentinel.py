"""Redis behind Sentinel: one URL that names the sentinels, the master and what is needed to connect to both.

kombu, Celery's result backend and redis-py each want these facts in a form of their own. In the settings they are one
URL, which `completed` makes of the variables, and which `sentinel_of` takes apart again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from market_data_store.connections.urls import hosts_of, is_sentinel, scheme_of, verified, with_verification

#: Sentinel's port.
_PORT = 26379
#: The parts of the query that are not about TLS.
_MASTER, _PASSWORD = "master_name", "sentinel_password"


@dataclass(frozen=True)
class Sentinel:
    """The sentinels, and the Redis whose master they name."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    database: int
    username: str | None
    password: str | None = field(repr=False)
    #: The sentinels' own.
    sentinel_password: str | None = field(repr=False)
    #: Options of TLS (`ssl_cert_reqs`, `ssl_ca_certs`, ...), for both; empty without TLS.
    tls: dict[str, str]
    #: The URL as kombu and Celery spell it.
    kombu_url: str = field(repr=False)

    @property
    def ssl_options(self) -> dict[str, Any]:
        """`tls` as redis-py's clients take it."""
        return {"ssl": True, **self.tls} if self.tls else {}


def completed(url: str, *, cert_reqs: str, master: str, password: str) -> str:
    """A broker's URL with all that it takes to connect; raises `ValueError`.

    A URL of sentinels gets the master's name and the sentinels' password, unless its query has them. What only one of
    its hosts has (user, password, number of the database) counts for all: kombu goes by the host that it is trying, and
    Celery by the first.
    """
    if not is_sentinel(url):
        return with_verification(url, cert_reqs)
    given, options = _parsed(url)
    options = {_MASTER: master, _PASSWORD: password, **options}
    if not options[_MASTER]:
        raise ValueError("set MDS_SENTINEL_MASTER to the name under which the sentinels know the master")
    if scheme_of(url) == "sentinels":
        options = verified(options, cert_reqs)
    user, path = (next(filter(None, parts), "") for parts in zip(*((u, p) for u, _, p in given), strict=True))
    if not (path.strip("/") or "0").isdecimal():
        raise ValueError("must end with the number of a database, such as sentinel://host:26379/0")
    hosts = [f"{scheme_of(url)}://{user}{'@' if user else ''}{host}/{path.strip('/') or 0}" for _, host, _ in given]
    return f"{';'.join(hosts)}?{urlencode({name: value for name, value in options.items() if value})}"


def sentinel_of(url: str) -> Sentinel | None:
    """What a URL of sentinels says, as `completed` returned it; None for another URL."""
    if not is_sentinel(url):
        return None
    given, options = _parsed(url)
    parts = [urlsplit(part) for part in hosts_of(url)]
    return Sentinel(
        hosts=tuple((part.hostname or "localhost", part.port or _PORT) for part in parts),
        master=options.get(_MASTER, ""),
        database=int(parts[0].path.strip("/") or 0),
        username=unquote(parts[0].username or "") or None,
        password=unquote(parts[0].password or "") or None,
        sentinel_password=options.get(_PASSWORD),
        tls={name: value for name, value in options.items() if name.startswith("ssl_")},
        kombu_url=";".join(f"sentinel://{user}{'@' if user else ''}{host}{path}" for user, host, path in given),
    )


def _parsed(url: str) -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    """By host: user and password as spelled, host and port, and path; and the options of all queries."""
    given: list[tuple[str, str, str]] = []
    options: dict[str, str] = {}
    for part in hosts_of(url):
        address, _, query = part.partition("?")
        authority, slash, path = address.partition("://")[2].partition("/")
        user, _, host = authority.rpartition("@")
        given.append((user, host, slash + path))
        options.update(parse_qsl(query))
    return given, options
