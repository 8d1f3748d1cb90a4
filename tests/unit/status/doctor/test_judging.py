"""What the checks make of what servers, clocks, disks and workers say."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from market_data_store.coordinator.answers import WorkerAnswer
from market_data_store.coordinator.management import QueueFacts
from market_data_store.status.doctor import connections, machine, rabbitmq_server, redis_server
from market_data_store.status.doctor.clocks import clock_of
from market_data_store.status.doctor.disks import megabytes, room_in
from market_data_store.status.doctor.finding import Finding
from market_data_store.status.doctor.rabbitmq_server import RabbitFacts
from market_data_store.status.doctor.redis_server import RedisFacts

WELL = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "aof_enabled": 1, "maxclients": 10_000}


def redis_facts(*, is_broker: bool = True, snapshots: str | None = "", **info: Any) -> RedisFacts:
    return RedisFacts("redis://h", is_broker, {**WELL, **info}, snapshots, 0.0)


Judge = Callable[[str, RedisFacts], Iterator[Finding]]


@pytest.mark.parametrize(
    ("judge", "facts", "severity", "words"),
    [
        (redis_server.version, redis_facts(), "ok", "Redis 7.2.4"),
        (redis_server.version, redis_facts(redis_version="6.0.16"), "warning", "Redis is 6.0.16"),
        (redis_server.version, redis_facts(server_name="valkey", valkey_version="9.1.0"), "ok", "Valkey 9.1.0"),
        (redis_server.eviction, redis_facts(maxmemory_policy="allkeys-lru"), "error", "deletes messages"),
        (redis_server.eviction, redis_facts(maxmemory_policy="volatile-lru"), "ok", "deletes no messages"),
        (
            redis_server.eviction,
            redis_facts(is_broker=False, maxmemory_policy="allkeys-lru"),
            "warning",
            "REDIS_URL: maxmemory-policy is allkeys-lru",
        ),
        (redis_server.persistence, redis_facts(), "ok", "appendonly is on"),
        (redis_server.persistence, redis_facts(aof_enabled=0), "error", "loses every message"),
        (redis_server.persistence, redis_facts(aof_enabled=0, snapshots="3600 1"), "warning", "last snapshot"),
        (redis_server.persistence, redis_facts(aof_enabled=0, snapshots=None), "skipped", "may not ask"),
        (redis_server.persistence, redis_facts(aof_last_write_status="err"), "error", "could not save"),
        (redis_server.memory, redis_facts(maxmemory=100, used_memory=81), "warning", "maxmemory"),
        (redis_server.memory, redis_facts(maxmemory=100, used_memory=79), "ok", "of 0 MB"),
        (redis_server.clock, RedisFacts("redis://h", True, None, None, None), "skipped", "TIME"),
        (redis_server.eviction, RedisFacts("redis://h", True, None, None, None), "skipped", "+info"),
    ],
)
def test_a_redis(judge: Judge, facts: RedisFacts, severity: str, words: str) -> None:
    (found,) = judge("broker", facts)
    assert (found.check.partition(".")[0], found.severity) == ("broker", severity)
    assert words in str(found)


QUORUM = {"store.write": "quorum", "store.backfill": "quorum"}
POLICY = {"delivery-limit": 1_000_000, "dead-letter-exchange": ""}


def managed(policy: dict[str, Any]) -> dict[str, QueueFacts]:
    return {"store.write": QueueFacts(0, None, "quorum", policy)}


@pytest.mark.parametrize(
    ("judge", "facts", "severity", "words"),
    [
        (rabbitmq_server.version, RabbitFacts("3.10.8", QUORUM, None), "ok", "3.10.8"),
        (rabbitmq_server.version, RabbitFacts("3.7.28", QUORUM, None), "warning", "3.7.28"),
        (rabbitmq_server.queues, RabbitFacts("3.10.8", QUORUM, None), "ok", "quorum"),
        (rabbitmq_server.queues, RabbitFacts("3.10.8", {**QUORUM, "store.write": ""}, None), "ok", "not there yet"),
        (rabbitmq_server.queues, RabbitFacts("3.10.8", {**QUORUM, "store.write": None}, None), "skipped", "unknown"),
        (rabbitmq_server.queues, RabbitFacts("3.10.8", {**QUORUM, "store.write": "x"}, None), "error", "delete_queue"),
        (rabbitmq_server.management, RabbitFacts("3.10.8", QUORUM, None), "ok", "is not set"),
        (rabbitmq_server.management, RabbitFacts("3.10.8", QUORUM, "gone"), "warning", "gone"),
        (rabbitmq_server.management, RabbitFacts("3.10.8", QUORUM, managed({})), "ok", "answers"),
        (rabbitmq_server.policy, RabbitFacts("3.10.8", QUORUM, None), "ok", "no limit"),
        (rabbitmq_server.policy, RabbitFacts("4.1.0", QUORUM, None), "skipped", "management"),
        (rabbitmq_server.policy, RabbitFacts("4.1.0", QUORUM, managed({})), "warning", "20 returns"),
        (rabbitmq_server.policy, RabbitFacts("4.1.0", QUORUM, managed(POLICY)), "ok", "a policy"),
    ],
)
def test_a_rabbitmq(
    judge: Callable[[str, RabbitFacts], Iterator[Finding]], facts: RabbitFacts, severity: str, words: str
) -> None:
    (found,) = judge("broker", facts)
    assert found.severity == severity
    assert words in str(found)


@pytest.mark.parametrize(
    ("ahead_s", "severity", "words"),
    [(1.9, "ok", "agree"), (-3.0, "warning", "3 s behind"), (61.0, "error", "61 s ahead of")],
)
def test_a_clock(ahead_s: float, severity: str, words: str) -> None:
    (found,) = clock_of("database.clock", "Postgres", ahead_s)
    assert (found.check, found.severity) == ("database.clock", severity)
    assert words in found.message


def test_a_disk(tmp_path: Path) -> None:
    assert room_in("c", tmp_path, "it", "", short=0, full=0).severity == "ok"
    assert room_in("c", tmp_path, "it", "make room", short=2**62, full=0).severity == "warning"
    assert room_in("c", tmp_path, "it", "make room", short=2**62, full=2**62).severity == "error"
    assert room_in("c", tmp_path / "gone", "it", "").severity == "skipped"
    assert (megabytes(1.5e6), megabytes(2e12)) == ("2 MB", "2,000 GB")


def test_the_packages_that_are_installed_are_those_that_are_needed() -> None:
    assert [finding.severity for finding in machine.packages()] == ["ok"]
    assert machine._unmet(Requirement("celery<5")) is not None
    assert machine._unmet(Requirement("nothing-of-this-name")) == "nothing-of-this-name is not installed"
    assert machine._unmet(Requirement("nothing-of-this-name; extra == 'bench'")) is None


def test_files_that_others_may_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("ADMIN_TOKEN=x\n")
    (tmp_path / ".env").chmod(0o600)
    assert [finding.severity for finding in machine.files(Path(".mds"))] == ["ok"]
    (tmp_path / ".env").chmod(0o644)
    (found,) = machine.files(Path(".mds"))
    assert (found.severity, found.remedy) == ("warning", "chmod go= .env")


def test_a_forgotten_spool_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    spools = tmp_path / "spool" / "abc"
    spools.mkdir(parents=True)
    with sqlite3.connect(spools / "000.db") as spool:
        spool.execute("CREATE TABLE messages (number INTEGER)")
        spool.execute("INSERT INTO messages VALUES (1), (2)")
    spool.close()
    before = sorted(spools.iterdir())
    assert [finding.severity for finding in machine.spools(tmp_path)] == ["ok"]  # it was changed just now
    os.utime(spools / "000.db", (1e9, 1e9))
    (found,) = machine.spools(tmp_path)
    assert found.severity == "warning"
    assert "2 messages" in found.message
    assert sorted(spools.iterdir()) == before
    (spools / "000.db").write_bytes(b"x" * 5_000)
    assert "cannot be read" in next(machine.spools(tmp_path)).message


def test_the_connections_of_the_workers_are_counted() -> None:
    fleet = connections.Fleet.of([WorkerAnswer({}, 0.0, processes=8), WorkerAnswer({}, 0.0, processes=4)])
    assert (fleet.workers, fleet.processes) == (2, 12)
    assert connections.Fleet.of([]).workers == 1
    (found,) = connections.at_redis("broker.connections", redis_facts(maxclients=20), fleet)
    assert found.severity == "warning"
    assert "maxclients of BROKER_URL is 20" in found.message
    (found,) = connections.at_redis("broker.connections", redis_facts(), fleet)
    assert found.severity == "ok"
    (found,) = connections.at_redis("redis.connections", None, fleet)
    assert found.severity == "skipped"
