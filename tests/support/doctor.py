"""`mds doctor` for tests: its JSON, and a store in which it finds nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis

from market_data_store.local import start_postgres, start_valkey
from market_data_store.postgres import schema
from support.databases import Connection
from support.processes import mds
from support.stream import Stream
from support.waiting import wait_until
from support.web import FLOWER, TOKEN, monitor
from support.workers import working

#: What is found wherever tests run as root, as in containers.
ROOT = "machine.user"
Found = dict[str, list[dict[str, str]]]


def doctor(directory: Path, *arguments: str, **variables: str) -> Found:
    """The findings of `mds doctor --json` by check; its exit status is 1 only if there is an error."""
    done = mds(directory, "doctor", "--json", *arguments, **variables)
    assert done.stdout, done
    report = json.loads(done.stdout)
    assert done.returncode == (1 if report["result"] == "error" else 0), done
    found: Found = {}
    for finding in report["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return found


def wrong(found: Found) -> dict[str, str]:
    """The severity by check of what is wrong, without what is wrong with the tests' user."""
    return {
        check: finding["severity"]
        for check, findings in found.items()
        for finding in findings
        if finding["severity"] in ("warning", "error") and check != ROOT
    }


@dataclass
class Store:
    """A healthy store: servers of its own, a worker and a monitor."""

    directory: Path
    variables: Mapping[str, str]
    database: Connection
    redis: Any

    def doctor(self, *arguments: str, without: str = "", **variables: str) -> Found:
        """The findings with these variables in place of its own."""
        given = {name: value for name, value in {**self.variables, **variables}.items() if name != without}
        return doctor(self.directory, *arguments, **given)


@contextmanager
def healthy(directory: Path) -> Iterator[Store]:
    """Servers as `mds up` starts them, migrated, with a worker and a monitor that leads."""
    with ExitStack() as stack:
        postgres = stack.enter_context(start_postgres(directory / "postgres"))
        valkey = stack.enter_context(start_valkey(directory / "valkey"))
        schema.upgrade(postgres.url)
        servers = {"DATABASE_URL": postgres.url, "BROKER_URL": valkey.url, "REDIS_URL": valkey.url}
        stack.enter_context(working(directory, **servers))
        stack.enter_context(monitor(directory, **servers))
        database = stack.enter_context(psycopg.connect(postgres.url, autocommit=True))
        client = stack.enter_context(redis.Redis.from_url(valkey.url, decode_responses=True))
        stream = Stream(valkey.url)
        wait_until(lambda: stream.events(), "the monitor leads")
        stream.client.close()
        yield Store(directory, {**servers, "ADMIN_TOKEN": TOKEN, **FLOWER}, database, client)
