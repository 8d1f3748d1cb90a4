"""A lane is named, and its queue is kept with what waits in a spool."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from market_data_store import AsyncStoreClient, StoreClient
from market_data_store.errors import InvalidMessage
from market_data_store.producer.messages import Gathering
from market_data_store.producer.spool import Spool
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE


def test_a_wrong_lane_is_an_error_that_names_both() -> None:
    wrong: dict[str, str] = {"lane": "fast"}
    with pytest.raises(InvalidMessage, match="lane='fast' is unknown; use 'live' or 'backfill'"):
        StoreClient(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidMessage, match="use 'live' or 'backfill'"):
        AsyncStoreClient("postgresql://127.0.0.1/x", **wrong)  # type: ignore[arg-type]


def test_a_spool_of_version_0_4_is_read_and_its_messages_are_live(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = Spool(path, 1 << 20)
    spool.append(Gathering(500, 1 << 20, 60).place("bars", b"{}", [(1, b"old")]))
    spool.close()
    with closing(sqlite3.connect(path)) as before:
        before.execute("ALTER TABLE messages DROP COLUMN queue")
        before.commit()
    spool = Spool(path, 1 << 20)
    spool.append(Gathering(500, 1 << 20, 60, queue=BACKFILL_QUEUE).place("bars", b"{}", [(1, b"new")]))
    assert [(spool.parts(m), m.queue) for m in spool.messages()] == [([b"old"], QUEUE), ([b"new"], BACKFILL_QUEUE)]
    spool.close()
