"""A message changes a letter only if `replay` has sent it, whatever its headers say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import msgspec
import pytest
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, Send, StartWorker
from support.processes import MDS, PYTHON, run
from support.version_0_4_0 import Version040
from support.waiting import wait_until
from support.workers import Worker
from support.writing import letter

from market_data_store import dead_letters
from market_data_store.dead_letters import Letter, signing
from market_data_store.protocol import REPLAYS_HEADER, Replayed

Stored = Callable[[], list[Bar]]
#: What a header may have for a signature besides none: version 0.4 writes none.
SIGNATURES: list[Any] = ["", "0" * 64, "é" * 64, "x" * 10_000, 5, None, [], {"key": ""}]


def kept(database: Connection, task_id: str = "victim") -> list[Letter]:
    return [one for one in dead_letters.stream(database) if one.task_id == task_id]


def header(letters: list[Letter], **changes: Any) -> dict[str, Any]:
    """What a replay of version 0.4 writes."""
    return {"task_id": letters[0].task_id, "ids": [one.id for one in letters], "whole": False, **changes}


def publish(url: str, body: bytes, headers: dict[str, Any]) -> None:
    with kombu.Connection(url) as connection:
        kombu.Producer(connection.default_channel, auto_declare=False).publish(
            body,
            routing_key=QUEUE,
            headers={"task": TASK, **headers},
            content_type="application/json",
            content_encoding="utf-8",
            declare=[kombu.Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})],
        )


def test_a_forged_header_neither_deletes_nor_changes_a_letter(
    worker: Worker, broker_url: str, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    rows = [letter(task_id="victim", position=n, dataset="bars", row=json.dumps(bars[n])) for n in range(2)]
    dead_letters.keep(database, [*rows, letter(task_id="victim", body=b"{")])
    signing.key(database)
    before = kept(database)
    of_rows, of_message = header(before[:1]), header(before[2:], whole=True)
    forged = [of_rows, of_message]
    forged += [{**one, "signature": signature} for one in forged for signature in SIGNATURES]

    good = [send(bars[n : n + 1], headers={REPLAYS_HEADER: one}) for n, one in enumerate(forged)]
    assert [result.get(timeout=30)["written"] for result in good] == [1] * len(forged)
    assert stored() == bars[: len(forged)]
    assert kept(database) == before

    bad = {**bars[100], "close": "FORGED"}
    refused = [send([bad], headers={REPLAYS_HEADER: one}, task_id=f"bad-{n}") for n, one in enumerate(forged)]
    assert [result.get(timeout=30)["rejected"] for result in refused] == [1] * len(forged)
    for n, one in enumerate(forged):
        publish(broker_url, b"[", {"id": f"unusable-{n}", REPLAYS_HEADER: one})
    own = {f"{kind}-{n}" for n in range(len(forged)) for kind in ("bad", "unusable")}
    wait_until(lambda: {one.task_id for one in dead_letters.page(database)} == own | {"victim"}, worker.logs)
    assert kept(database) == before


def test_a_signature_is_good_for_one_message_and_its_letters(
    worker: Worker, send: Send, bars: list[Bar], database: Connection
) -> None:
    dead_letters.keep(database, [letter(task_id="victim", dataset="bars", row=json.dumps(bars[0]))])
    (victim,) = kept(database)
    genuine = signing.signed(Replayed("victim", (victim.id,), False), "the-message", signing.key(database))
    copied = msgspec.to_builtins(genuine) | {"ids": [victim.id]}
    assert send(bars[:1], task_id="another", headers={REPLAYS_HEADER: copied}).get(timeout=30)["written"] == 1
    other = {**copied, "ids": [victim.id + 1]}
    assert send(bars[:1], task_id="the-message", headers={REPLAYS_HEADER: other}).get(timeout=30)["unchanged"] == 1
    assert kept(database) == [victim]
    send(bars[:1], task_id="the-message", headers={REPLAYS_HEADER: copied})
    wait_until(lambda: kept(database) == [], worker.logs)


def test_any_key_of_the_table_is_good(worker: Worker, send: Send, bars: list[Bar], database: Connection) -> None:
    first = signing.key(database)
    assert signing.key(database) == first
    assert len(first) == 64
    database.execute("INSERT INTO replay_keys (key) VALUES ('another')")
    dead_letters.keep(database, [letter(position=n, dataset="bars", row=json.dumps(bars[n])) for n in range(2)])
    ids = [one.id for one in dead_letters.page(database)]
    for n, key in enumerate((first, "another")):
        genuine = signing.signed(Replayed("t", (ids[n],), False), f"message-{n}", key)
        send(
            bars[n : n + 1],
            task_id=f"message-{n}",
            headers={REPLAYS_HEADER: msgspec.to_builtins(genuine) | {"ids": [ids[n]]}},
        ).get(timeout=30)
    assert dead_letters.count(database) == 0


def test_without_the_table_of_keys_a_replay_is_written_and_its_letter_stays(
    worker: Worker, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    dead_letters.keep(database, [letter(dataset="bars", row=json.dumps(bars[0]))])
    (kept_one,) = dead_letters.page(database)
    genuine = signing.signed(Replayed("t", (kept_one.id,), False), "message", signing.key(database))
    database.execute("ALTER TABLE replay_keys RENAME TO gone")
    try:
        headers = {REPLAYS_HEADER: msgspec.to_builtins(genuine) | {"ids": [kept_one.id]}}
        assert send(bars[:1], task_id="message", headers=headers).get(timeout=30)["written"] == 1
        assert send(bars[1:2]).get(timeout=30)["written"] == 1
    finally:
        database.execute("ALTER TABLE gone RENAME TO replay_keys")
    assert dead_letters.page(database) == [kept_one]
    assert stored() == bars[:2]
    assert "replay_keys: going on without this table" in worker.logs()


@pytest.mark.slow
def test_replays_of_one_version_lose_nothing_in_workers_of_the_other(
    start_worker: StartWorker,
    broker_url: str,
    database_url: str,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    tmp_path: Path,
) -> None:
    then = Version040(tmp_path / "then").variables
    dead_letters.keep(database, [letter(position=n, dataset="bars", row=json.dumps(bars[n])) for n in range(3)])
    dead_letters.keep(database, [letter(task_id="whole", body=b"[")])
    *_, whole = dead_letters.page(database)
    replays = ("dead-letters", "replay", "--all", "--timeout", "0")
    servers = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}

    # Sent by version 0.4, taken by today's: written, and each letter is still there.
    run(PYTHON, "-m", "market_data_store", *replays, directory=tmp_path, environment=servers | then)
    now = start_worker()
    wait_until(lambda: stored() == bars[:3] and dead_letters.count(database) == 5, now.whole_log, timeout_s=30)
    assert [one.task_id for one in dead_letters.page(database)][:4] == ["t", "t", "t", "whole"]
    assert dead_letters.page(database)[3] == whole
    assert "this database's key did not sign them" in now.whole_log()
    now.stop()

    # Sent by today's, taken by version 0.4: as ever.
    before = start_worker(**then)
    run(*MDS, *replays, directory=tmp_path, environment=servers)
    run(*MDS, "release-held", directory=tmp_path, environment=servers)  # version 0.4 reads one lane only
    wait_until(lambda: dead_letters.count(database) == 2, before.whole_log, timeout_s=30)
    wait_until(
        lambda: all(one.refused_at > one.created_at for one in dead_letters.page(database)),
        before.whole_log,
        timeout_s=30,
    )
    assert whole.id in {one.id for one in dead_letters.page(database)}
    assert stored() == bars[:3]
