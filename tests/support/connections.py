"""The servers' own lists of their connections: whose they are, and how many there were at once."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import redis

from support.brokers import Broker

#: The names that processes of the store give their connections.
_OURS = re.compile(r"\bmds-[a-z]+")
_CLIENTS = """
    SELECT application_name FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

#: Returns who has the connections that are open now.
Look = Callable[[], list[str]]


class Peaks:
    """The most connections that were open at once, in all and by who opened them."""

    def __init__(self) -> None:
        self.total = 0
        self.by_name: Counter[str] = Counter()

    def note(self, names: list[str]) -> None:
        self.total = max(self.total, len(names))
        for name, count in Counter(names).items():
            self.by_name[name] = max(self.by_name[name], count)

    def __str__(self) -> str:
        return f"{self.total} at once; by process {dict(sorted(self.by_name.items()))}"


@contextmanager
def watched(look: Look) -> Iterator[Peaks]:
    """What is open during the block, as often as the server can be asked."""
    peaks, stop = Peaks(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            peaks.note(look())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


@contextmanager
def at_broker(broker: Broker) -> Iterator[Look]:
    """Look at a broker's list, without the observer's own connection."""
    if broker.kind == "rabbitmq":
        yield lambda: [_name(line) for line in broker.rabbitmq.connections()]
        return
    with redis.Redis.from_url(broker.url, client_name="observer") as client:
        yield lambda: [str(each["name"]) for each in client.client_list() if each["name"] != "observer"]


@contextmanager
def at_postgres(database_url: str) -> Iterator[Look]:
    """Look at the list of client backends of a database, without the observer's own."""
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(database_url, autocommit=True))
        yield lambda: [str(name) for (name,) in connection.execute(_CLIENTS).fetchall()]


def _name(properties: str) -> str:
    found = _OURS.search(properties)
    return found[0] if found else ""
