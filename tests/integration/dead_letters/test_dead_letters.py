"""Dead letters are listed without what was sent, replayed until they are written, and deleted on request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner
from support.brokers import on_redis
from support.databases import Connection
from support.fixtures.store import QUEUE, TASK, Bar, HoldBack, Send
from support.processes import MDS, run
from support.waiting import wait_until
from support.workers import Worker

from market_data_store import config, dead_letters
from market_data_store.cli.dead_letters import command
from market_data_store.datasets import DATASETS
from market_data_store.dead_letters import DeadLetter, Letter
from market_data_store.dead_letters.replay import messages, replay
from market_data_store.errors import InvalidMessage
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts, Replayed
from market_data_store.wire.rows import read_rows

Stored = Callable[[], list[Bar]]


SANE = "ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close < 1000)"
NOT_SANE = "ALTER TABLE bars_ohlcv DROP CONSTRAINT sane"


def letter(**changes: Any) -> DeadLetter:
    given = {"task_id": "t", "position": 0, "reason": "close: 'x' is not a number", "enqueued_at": 0, "dataset": "bars"}
    given["pattern"] = "close: … is not a number"
    return DeadLetter(**{**given, "row": '{"close": "x"}', "defaults": {"provider": "p"}, **changes})


def all_letters(database: Connection) -> list[Letter]:
    return list(dead_letters.stream(database))


# --- What is kept ----------------------------------------------------------------------------------------------------


def test_a_listing_goes_by_id_and_holds_nothing_that_was_sent(database: Connection) -> None:
    dead_letters.keep(database, [letter(position=n) for n in range(5)])
    dead_letters.keep(database, [letter(task_id="u", dataset="ticks"), letter(dataset=None, row=None, body=b"{")])
    listed = dead_letters.page(database)
    assert [one.id for one in listed] == sorted(one.id for one in listed)
    assert len(listed) == 7
    assert {(one.row, one.defaults, one.body) for one in listed} == {(None, None, None)}
    assert dead_letters.page(database, dataset="ticks") == listed[6:]
    assert dead_letters.page(database, after=listed[1].id, limit=2) == listed[2:4]


def test_a_letter_is_shown_whole(database: Connection) -> None:
    dead_letters.keep(database, [letter(position=3, sqlstate="23514")])
    (listed,) = dead_letters.page(database)
    found = dead_letters.get(database, listed.id)
    assert found is not None
    assert (found.task_id, found.position, found.dataset, found.sqlstate) == ("t", 3, "bars", "23514")
    assert (found.row, found.defaults, found.body) == ('{"close": "x"}', '{"provider": "p"}', None)
    assert found.created_at == found.refused_at
    assert found.enqueued_at.year == 2000
    assert dead_letters.get(database, listed.id + 1) is None


def test_letters_are_purged_by_id_by_dataset_or_all(database: Connection) -> None:
    dead_letters.keep(database, [letter(position=n) for n in range(4)] + [letter(dataset="ticks")])
    ids = [one.id for one in dead_letters.page(database, dataset="bars")]
    assert dead_letters.purge(database, ids=ids[:1], dataset=None) == 1
    assert dead_letters.purge(database, ids=[], dataset=None) == 0
    assert dead_letters.purge(database, ids=ids[:2], dataset="ticks") == 0
    assert dead_letters.purge(database, ids=None, dataset="ticks") == 1
    assert dead_letters.count(database) == 3
    assert dead_letters.purge(database, ids=None, dataset=None) == 3


def test_two_messages_of_one_task_id_leave_two_letters(database: Connection) -> None:
    different = [letter(row="1"), letter(row="2"), letter(row="2", dataset="ticks"), letter(row="2", defaults={})]
    different += [letter(row=None, body=b"1"), letter(row=None, body=b"2")]
    for _ in range(2):
        dead_letters.keep(database, different)
    assert dead_letters.count(database) == len(different)


def test_the_reasons_of_a_task_are_found_however_long_its_id_is(database: Connection) -> None:
    long = "x" * 1_000
    dead_letters.keep(database, [letter(task_id=long), letter(task_id="a\0b")])
    reason = "close: 'x' is not a number"
    assert dead_letters.reasons(database, [long, "a\0b", "other"]) == [("a\0b", 0, reason), (long, 0, reason)]


# --- What the writer does with a replay ------------------------------------------------------------------------------


@pytest.fixture
def write(database_url: str) -> Any:
    writer = Writer(database_url)

    def write(rows: list[Any], replays: Replayed | None = None, task_id: str = "again") -> Counts:
        given = read_rows(DATASETS["bars"], json.dumps(rows).encode(), {})
        sent = DecodedMessage(task_id=task_id, dataset=DATASETS["bars"], rows=given, enqueued_at=0, replays=replays)
        return writer.write(decoded(DATASETS["bars"], [sent]), [sent]).counts[0]

    yield write
    writer.close()


def test_rows_of_a_replay_that_are_refused_again_keep_their_letters(
    write: Any, bars: list[Bar], database: Connection
) -> None:
    rows = [{**bar, "close": 5_000.0 if n % 3 == 0 else None if n % 3 == 1 else 1.0} for n, bar in enumerate(bars[:9])]
    dead_letters.keep(database, [letter(position=n, row=json.dumps(row)) for n, row in enumerate(rows)])
    ids = [one.id for one in dead_letters.page(database)]
    database.execute(SANE)
    assert write(rows, Replayed("t", tuple(ids), False)) == Counts(written=3, rejected=6)
    left = dead_letters.page(database)
    assert [one.id for one in left] == [id_ for n, id_ in enumerate(ids) if n % 3 < 2]
    assert {one.sqlstate for one in left[::2]} == {"23514"}
    assert {one.reason for one in left[1::2]} == {"close: null (required); give it in the row or in defaults"}
    assert all(one.refused_at > one.created_at and one.task_id == "t" for one in left)

    database.execute(NOT_SANE)
    assert write(rows, Replayed("t", tuple(ids), False)) == Counts(written=3, unchanged=3, rejected=3)
    assert [one.id for one in dead_letters.page(database)] == ids[1::3]


def test_of_equal_keys_each_letter_that_is_dealt_with_leaves(write: Any, bars: list[Bar], database: Connection) -> None:
    rows = [{**bars[0], "close": close} for close in (1.0, 2.0, 5_000.0)]
    dead_letters.keep(database, [letter(position=n, row=json.dumps(row)) for n, row in enumerate(rows)])
    ids = [one.id for one in dead_letters.page(database)]
    database.execute(SANE)
    assert write(rows, Replayed("t", tuple(ids), False)) == Counts(written=1, superseded=1, rejected=1)
    assert [one.id for one in dead_letters.page(database)] == ids[2:]


def test_a_row_and_its_letter_change_places_in_one_commit(write: Any, bars: list[Bar], database: Connection) -> None:
    dead_letters.keep(database, [letter()])
    (kept,) = dead_letters.page(database)
    database.execute(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE SQLSTATE ''57014''; END'"
    )
    database.execute("CREATE TRIGGER broken BEFORE DELETE ON dead_letters FOR EACH ROW EXECUTE FUNCTION broken()")
    with pytest.raises(Exception, match="57014"):
        write(bars[:1], Replayed("t", (kept.id,), False))
    assert database.execute("SELECT FROM bars_ohlcv").rowcount == 0


def test_only_a_letter_of_the_named_task_leaves(write: Any, bars: list[Bar], database: Connection) -> None:
    """A worker of another database, or a forged header, must not take away what it does not know."""
    dead_letters.keep(database, [letter()])
    (kept,) = dead_letters.page(database)
    assert write(bars[:1], Replayed("u", (kept.id,), False)) == Counts(written=1)
    assert dead_letters.page(database) == [kept]


def test_a_row_whose_letter_was_purged_while_it_was_on_its_way_is_kept_anew(write: Any, database: Connection) -> None:
    write([7], Replayed("t", (4_711,), False))
    (kept,) = dead_letters.page(database)
    assert (kept.task_id, kept.position) == ("t", 0)


# --- Replays through broker and worker -------------------------------------------------------------------------------


def test_a_replay_writes_what_was_mended_and_leaves_the_rest(
    worker: Worker, send: Send, producer: Celery, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    send(bars[21:22]).get(timeout=30)
    database.execute(SANE)
    rows: list[Any] = [{**bar, "close": 5_000.0} for bar in bars[:20]]
    wrong = {**bars[20], "close": "x"}
    result = send([*rows, wrong], task_id="first").get(timeout=30)
    reasons = result.pop("reasons")
    assert result == {"written": 0, "unchanged": 0, "stale": 0, "rejected": 21}
    kept = dead_letters.page(database)
    assert reasons == [
        {"position": n, "reason": kept_one.reason, "letter": kept_one.id}
        for n, kept_one in enumerate(sorted(kept, key=lambda one: one.position)[:3])
    ]
    (wrong_id,) = (one.id for one in dead_letters.page(database) if one.position == 20)
    database.execute(NOT_SANE)

    assert replay(producer, database, dataset="ticks") == 0
    assert replay(producer, database, dataset="bars") == 21
    wait_until(lambda: dead_letters.count(database) == 1)
    assert stored() == [*rows, bars[21]]
    (left,) = wait_until(lambda: [one for one in dead_letters.page(database) if one.refused_at > one.created_at])
    assert (left.id, left.task_id, left.position) == (wrong_id, "first", 20)
    whole = dead_letters.get(database, left.id)
    assert whole is not None
    assert json.loads(whole.row or "") == wrong

    assert replay(producer, database, ids=[left.id]) == 1
    wait_until(lambda: dead_letters.page(database)[0].refused_at > left.refused_at)
    assert dead_letters.count(database) == 1


def test_a_replay_carries_the_moment_at_which_the_row_was_first_enqueued(
    worker: Worker, send: Send, producer: Celery, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    database.execute(SANE)
    send([{**bars[0], "close": 5_000.0}]).get(timeout=30)
    send(bars[:1]).get(timeout=30)
    database.execute(NOT_SANE)
    assert replay(producer, database) == 1
    wait_until(lambda: dead_letters.count(database) == 0)
    assert stored() == bars[:1]


def test_a_letter_stays_until_its_row_is_committed(
    worker: Worker,
    send: Send,
    producer: Celery,
    bars: list[Bar],
    stored: Stored,
    database: Connection,
    writes_held_back: HoldBack,
) -> None:
    dead_letters.keep(database, [letter(row=json.dumps(bars[0]))])
    with writes_held_back() as until_held:
        assert replay(producer, database) == 1
        until_held(1)
        assert dead_letters.count(database) == 1
    wait_until(lambda: dead_letters.count(database) == 0)
    assert stored() == bars[:1]


def test_whole_messages_are_sent_again_as_they_are(
    worker: Worker, producer: Celery, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    def body(*args: Any, **embed: Any) -> bytes:
        return json.dumps([args, {}, embed]).encode()

    callback = {"task": TASK, "args": ["bars", []], "kwargs": {}, "options": {"queue": QUEUE}, "immutable": True}
    bodies = {
        "usable": body("bars", [*bars[:3], 7]),
        "with a callback": body("bars", bars[3:4], callbacks=[callback]),
        "unusable": body("candles", []),
        "no text": b"\xff\x00[",
    }
    letters = [letter(task_id=name, row=None, defaults=None, dataset=None, body=b) for name, b in bodies.items()]
    dead_letters.keep(database, letters)
    sent = list(messages(producer, database))
    assert [message.whole for message in sent] == [True] * 4
    (usable,) = (one.id for one in dead_letters.page(database) if one.task_id == "usable")
    (fresh,) = (message.task_id for message in sent if message.ids == (usable,))
    wait_until(lambda: stored() == bars[:4])
    wait_until(lambda: sum(one.refused_at > one.created_at for one in dead_letters.page(database)) == 2)
    wait_until(lambda: dead_letters.count(database) == 3)
    left = {one.task_id: one for one in all_letters(database)}
    assert left.keys() == {"unusable", "no text", fresh}
    assert left["unusable"].reason.startswith("dataset: 'candles' is unknown")
    assert left["no text"].body == bodies["no text"]
    assert (left[fresh].row, left[fresh].position) == ("7", 3)


def test_letters_of_one_message_are_sent_together_up_to_500(
    worker: Worker, producer: Celery, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    rows = bars[:1_200]
    dead_letters.keep(database, [letter(task_id="a", position=n, row=json.dumps(row)) for n, row in enumerate(rows)])
    dead_letters.keep(database, [letter(task_id="b", row=json.dumps(bars[1_200]))])
    sent = list(messages(producer, database))
    assert [len(message.ids) for message in sent] == [500, 500, 200, 1]
    wait_until(lambda: dead_letters.count(database) == 0)
    assert stored() == bars[:1_201]


def test_a_header_that_is_no_replays_is_ignored(
    worker: Worker, send: Send, bars: list[Bar], stored: Stored, database: Connection
) -> None:
    dead_letters.keep(database, [letter()])
    (kept,) = dead_letters.page(database)
    forged: list[Any] = [7, {"task_id": "t"}, {"task_id": "t", "ids": [kept.id, kept.id], "whole": False}]
    forged += [
        {"task_id": "t", "ids": [2**63 - 1], "whole": True},
        {"task_id": "t\0", "ids": [kept.id], "whole": False},
    ]
    results = [send(bars[n : n + 1], headers={"replays": header}) for n, header in enumerate(forged)]
    assert [result.get(timeout=30)["written"] for result in results] == [1] * len(forged)
    assert dead_letters.page(database) == [kept]


# --- The command -----------------------------------------------------------------------------------------------------


def in_process(*arguments: str) -> tuple[int, str]:
    """What does not talk to the broker needs no process of its own."""
    done = CliRunner().invoke(command, arguments, env={"COLUMNS": "160"})
    return done.exit_code, str(done.exception or "") if isinstance(done.exception, InvalidMessage) else done.output


@pytest.fixture
def mds(
    broker_url: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, str]]]:
    monkeypatch.chdir(tmp_path)
    for name, value in {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "COLUMNS": "160"}.items():
        monkeypatch.setenv(name, value)
    config.settings.cache_clear()

    def mds(*arguments: str) -> tuple[int, str]:
        if arguments[0] != "replay":
            return in_process(*arguments)
        done = run(*MDS, "dead-letters", *arguments, directory=tmp_path)
        return done.returncode, done.stdout + done.stderr

    yield mds
    config.settings.cache_clear()


@on_redis
def test_the_command_lists_shows_replays_and_purges(
    worker: Worker, send: Send, mds: Callable[..., tuple[int, str]], bars: list[Bar], database: Connection
) -> None:
    database.execute(SANE)
    send([{**bars[0], "close": 5_000.0, "note": "SECRET"}, {**bars[1], "close": "\x1b[31m"}]).get(timeout=30)
    database.execute(NOT_SANE)
    first, second = (one.id for one in sorted(dead_letters.page(database), key=lambda one: one.position))

    code, listed = mds("list", "--dataset", "bars")
    assert code == 0
    assert "23514" in listed
    assert 'violates check constraint "sane"' in " ".join(listed.split())  # however wide the terminal is
    assert "SECRET" not in listed
    assert "\x1b" not in listed
    assert f"--after {min(first, second)}" in mds("list", "--limit", "1")[1]
    assert mds("list", "--dataset", "news") == (0, "no dead letters\n")
    assert '"note": "SECRET"' in mds("show", str(first))[1]
    assert mds("show", "4711") == (1, "id: 4711 is not a dead letter; see `mds dead-letters list`")

    assert mds("replay", "--all") == (1, "2 sent: 1 gone, 1 refused again\n")
    assert [one.id for one in dead_letters.page(database)] == [second]
    database.execute("UPDATE dead_letters SET row = %s", [json.dumps(bars[1])])
    assert mds("replay", "--id", str(second)) == (0, "1 sent: 1 gone, 0 refused again\n")
    assert database.execute("SELECT FROM bars_ohlcv").rowcount == 2

    dead_letters.keep(database, [letter(), letter(dataset="news")])
    code, said = mds("purge")
    assert code == 2
    assert "select letters by exactly one of --id 17, --all, and filters such as --dataset bars" in said
    assert mds("purge", "--dataset", "news", "--yes") == (0, "1 deleted\n")
    code, said = mds("purge", "--all")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "this deletes 1 dead letter for good; give --yes" in said
    assert mds("purge", "--all", "--yes") == (0, "1 deleted\n")


@on_redis
def test_a_replay_that_no_worker_deals_with_says_so_and_loses_nothing(
    mds: Callable[..., tuple[int, str]], database: Connection
) -> None:
    dead_letters.keep(database, [letter()])
    code, said = mds("replay", "--all", "--timeout", "0.5")
    assert code == 1
    assert "1 still pending after 0.5 s" in said
    assert dead_letters.count(database) == 1
