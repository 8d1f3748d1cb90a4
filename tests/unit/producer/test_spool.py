"""The spool's file: what was put in comes out again, in order, whatever process opens it next."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_store.errors import Backpressure, SpoolFull, SpoolUnavailable
from market_data_store.producer.messages import Gathering, Message
from market_data_store.producer.spool import Spool

MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def keep(spool: Spool, *parts: bytes, rows: int = 1, gathering: Gathering | None = None) -> list[Message]:
    """Append each part as a message of its own, unless a gathering says otherwise."""
    gathering = gathering or Gathering(1, MIB, 60)
    placements = gathering.place("bars", b"{}", [(rows, part) for part in parts])
    spool.append(placements)
    return gathering.add(placements)


def bodies(spool: Spool) -> list[bytes]:
    return [b",".join(spool.parts(message)) for message in spool.messages()]


def test_the_next_one_to_open_it_finds_what_was_kept_in_order(path: Path) -> None:
    first = Spool(path, MIB)
    kept = keep(first, b"a", b"b", b"c", rows=500)
    kept[1].sent_at = 12.5
    first.mark_sent(kept[1])
    first.remove([kept[0]])
    first.close()
    second = Spool(path, MIB)
    found = second.messages()
    assert [(m.task_id, m.dataset, m.rows, m.enqueued_at, m.sent_at) for m in found] == [
        (m.task_id, "bars", 500, m.enqueued_at, m.sent_at) for m in kept[1:]
    ]
    assert bodies(second) == [b"b", b"c"]
    second.close()


def test_rows_that_were_gathered_in_one_message_stay_together_under_its_id(path: Path) -> None:
    spool, gathering = Spool(path, MIB), Gathering(500, MIB, 60)
    for n in range(3):
        assert keep(spool, b'{"n":%d}' % n, gathering=gathering) == []
    (message,) = gathering.due(float("inf"))
    spool.close()
    spool = Spool(path, MIB)
    (found,) = spool.messages()
    assert (found.task_id, found.rows, found.enqueued_at) == (message.task_id, 3, message.enqueued_at)
    assert spool.parts(found) == message.parts
    spool.close()


def test_it_is_readable_for_its_owner_alone(path: Path) -> None:
    path.touch(0o644)
    spool = Spool(path, MIB)
    keep(spool, b"a")
    files = sorted(path.parent.iterdir())
    assert {file.name for file in files} == {"spool.db", "spool.db-wal", "spool.db.lock"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    spool.close()


def test_a_full_one_takes_nothing_of_the_call_and_names_path_limit_and_remedy(path: Path) -> None:
    spool = Spool(path, 1_000)
    kept = keep(spool, b"x" * 300, b"y" * 300)
    with pytest.raises(SpoolFull, match=rf"{path} is full: .* limit of 1,000; .* raise spool_max_bytes") as refusal:
        keep(spool, b"z" * 100, b"z" * 200)
    assert isinstance(refusal.value, Backpressure), "who waits at backpressure waits here as well"
    assert bodies(spool) == [b"x" * 300, b"y" * 300]
    spool.remove(kept[:1])
    keep(spool, b"z" * 300)
    spool.close()
    spool = Spool(path, 1_000)
    assert bodies(spool) == [b"y" * 300, b"z" * 300]
    with pytest.raises(SpoolFull):
        keep(spool, b"w" * 300)
    spool.close()


def test_a_second_one_is_refused_until_the_first_is_closed(path: Path) -> None:
    spool = Spool(path, MIB)
    with pytest.raises(SpoolUnavailable, match=f"{path} is in use by another StoreClient"):
        Spool(path, MIB)
    keep(spool, b"a")
    spool.close()
    spool.close()
    spool = Spool(path, MIB)
    assert bodies(spool) == [b"a"]
    spool.close()


def test_a_file_that_is_no_spool_is_refused_in_a_line_and_not_touched(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"rows, rows, rows\n" * 1_000)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE bars (symbol TEXT)")
    database.close()
    for file, reason in (
        (path, "it is not a spool, or it is damaged; move it away"),
        (other, "is an SQLite file, but not a spool"),
    ):
        before = file.read_bytes()
        with pytest.raises(SpoolUnavailable, match=reason) as refusal:
            Spool(file, MIB)
        assert str(file) in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert file.read_bytes() == before
        with pytest.raises(SpoolUnavailable, match=reason):
            Spool(file, MIB)  # the lock was released


@pytest.mark.parametrize("path", [Path("/dev/null/spool"), Path("/nowhere/spool")])
def test_a_path_that_cannot_be_opened_is_named(path: Path) -> None:
    with pytest.raises(SpoolUnavailable, match=f"the spool {path} cannot be opened: "):
        Spool(path, MIB)


def test_a_damaged_file_is_reported(path: Path) -> None:
    spool = Spool(path, 64 * MIB)
    keep(spool, *[b"x" * 10_000] * 100)
    spool.close()
    with path.open("r+b") as file:
        file.seek(8_192)
        file.write(b"\xff" * 200_000)
    for _ in range(2):
        with pytest.raises(SpoolUnavailable, match=f"{path} cannot be used: .*damaged"):
            Spool(path, 64 * MIB).messages()


def test_a_disk_that_is_full_refuses_the_call_and_keeps_what_there_is(path: Path) -> None:
    spool = Spool(path, 64 * MIB)
    gathering = Gathering(500, 64 * MIB, 60)
    keep(spool, b"a", gathering=gathering)
    spool._database.execute("PRAGMA max_page_count = 10")  # SQLite answers as to a full disk
    with pytest.raises(SpoolUnavailable, match="is the disk full"):
        keep(spool, b"x" * MIB, gathering=gathering)
    spool._database.execute("PRAGMA max_page_count = 100000")
    keep(spool, b"b", gathering=gathering)
    assert bodies(spool) == [b"a,b"]
    spool.close()


def test_an_empty_spool_gives_its_disk_space_back(path: Path) -> None:
    spool = Spool(path, 64 * MIB)
    spool.remove(keep(spool, *[b"x" * MIB] * 20))
    assert spool.bytes == 0
    spool.close()
    assert path.stat().st_size < MIB


part = st.tuples(st.integers(1, 600), st.binary(min_size=1, max_size=300))


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(["bars", "ticks"]), st.sampled_from([b"{}", b'{"a":1}']), st.lists(part, max_size=4)),
        max_size=12,
    ),
    removed=st.sets(st.integers(0, 20)),
    max_rows=st.integers(1, 700),
    max_bytes=st.integers(50, 1_000),
)
def test_whatever_is_written_is_there_after_a_restart_but_for_what_was_removed(
    tmp_path_factory: pytest.TempPathFactory,
    calls: Sequence[tuple[str, bytes, list[tuple[int, bytes]]]],
    removed: set[int],
    max_rows: int,
    max_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("spool") / "spool.db"
    spool, gathering = Spool(path, MIB), Gathering(max_rows, max_bytes, 60)
    full: list[Message] = []
    for dataset, defaults, parts in calls:
        placements = gathering.place(dataset, defaults, parts)
        spool.append(placements)
        full += gathering.add(placements)
    open_ones = gathering.due(float("inf"))
    spool.remove([message for n, message in enumerate(full) if n in removed])
    expected = [message for n, message in enumerate(full) if n not in removed] + open_ones
    spool.close()
    spool = Spool(path, MIB)
    found = {message.task_id: message for message in spool.messages()}
    assert {(m.task_id, m.dataset, m.defaults, m.rows, m.enqueued_at, b",".join(m.parts)) for m in expected} == {
        (m.task_id, m.dataset, m.defaults, m.rows, m.enqueued_at, b",".join(spool.parts(m))) for m in found.values()
    }
    for message in full:
        assert message.rows <= max(max_rows, max(rows for rows, _ in [p for _, _, ps in calls for p in ps]))
    spool.remove(spool.messages())
    assert (spool.bytes, spool.messages()) == (0, [])
    spool.close()
