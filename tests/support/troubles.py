"""What can go wrong with a store, as blocks: servers that are away or full, workers that hang, an altered table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from market_data_store.local import start_postgres, start_valkey
from support.faketime import clock_off_by
from support.incidents import QUOTA_BYTES, Store, server_is_stopped
from support.waiting import wait_until
from support.workers import Worker


@contextmanager
def database_down(store: Store) -> Iterator[None]:
    yield from server_is_stopped(store, "postgres", start_postgres)


@contextmanager
def database_read_only(store: Store) -> Iterator[None]:
    """As some hosts do when the plan is used up."""
    with store.database() as database:
        database.execute("SET default_transaction_read_only = off")
        database.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        database.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            database.execute("ALTER SYSTEM RESET default_transaction_read_only")
            database.execute("SELECT pg_reload_conf()")


@contextmanager
def database_full(store: Store) -> Iterator[None]:
    """Near its quota."""
    with store.database() as database:
        ((used,),) = database.execute("SELECT pg_database_size(current_database())").fetchall()
        rows = (QUOTA_BYTES - used) // 1_000
        database.execute(f"CREATE TABLE filler AS SELECT repeat('x', 970) AS x FROM generate_series(1, {rows})")
        try:
            yield
        finally:
            database.execute("DROP TABLE filler")


@contextmanager
def broker_down(store: Store) -> Iterator[None]:
    yield from server_is_stopped(store, "valkey", start_valkey)


@contextmanager
def no_worker(store: Store) -> Iterator[None]:
    store.worker.stop()
    try:
        yield
    finally:
        store.worker.process.start()
        store.worker.ready()


@contextmanager
def worker_stalled(store: Store) -> Iterator[None]:
    """Its pool hangs, while the parent answers."""
    stopped = psutil.Process(store.worker.pid).children()
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in psutil.Process(store.worker.pid).children():
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def dataset_held(store: Store) -> Iterator[None]:
    with store.database() as database:
        database.execute("ALTER TABLE signals RENAME COLUMN value TO other")
        try:
            yield
        finally:
            database.execute("ALTER TABLE signals RENAME COLUMN other TO value")


@contextmanager
def broken_producer(store: Store) -> Iterator[None]:
    store.producer.value = "high"
    try:
        yield
    finally:
        store.producer.value = 1.0


@contextmanager
def feed_stopped(store: Store) -> Iterator[None]:
    """The producer sends nothing."""
    store.producer.is_sending = False
    try:
        yield
    finally:
        store.producer.is_sending = True


@contextmanager
def wrong_clock(store: Store) -> Iterator[None]:
    """Of a second worker, on a machine whose clock is two minutes late."""
    worker = Worker({**store.settings, **clock_off_by(-120.0)}, store.directory)
    try:
        worker.ready()
        yield
        worker.stop()
    finally:
        worker.container.kill()


@contextmanager
def disk_of_broker_full(store: Store) -> Iterator[None]:
    """Redis cannot save its snapshot: the process that saves is killed while it is slow."""
    with store.redis() as server:
        server.config_set("save", "3600 1")
        server.config_set("rdb-key-save-delay", "5000000")
        server.bgsave()
        for child in psutil.Process(int(server.info("server")["process_id"])).children():
            child.kill()
        wait_until(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err")
        server.config_set("rdb-key-save-delay", "0")
        try:
            yield
        finally:
            server.bgsave()
            server.config_set("save", "")


@contextmanager
def memory_of_broker_full(store: Store) -> Iterator[None]:
    with store.redis() as server:
        server.config_set("maxmemory", "1mb")
        try:
            yield
        finally:
            server.config_set("maxmemory", "0")
