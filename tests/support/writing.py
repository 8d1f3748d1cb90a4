"""Messages as a worker hands them to the writer, and what they leave in the tables."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from market_data_store.datasets import DATASETS
from market_data_store.dead_letters import DeadLetter
from market_data_store.postgres.batch import Written
from market_data_store.postgres.messages import DecodedMessage, Sent, decoded
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import JSON, Counts
from market_data_store.wire.reader import known_defaults
from market_data_store.wire.rows import read_rows
from support.databases import Connection

Row = dict[str, Any]

TIMEOUT_S = 10.0
AT = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

#: Notes for each statement that writes bars how it does.
LOG_WAYS = """
    CREATE TABLE ways (number serial, way text);
    CREATE FUNCTION log_way() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN
        INSERT INTO ways (way) VALUES (CASE WHEN current_query() LIKE ''COPY %'' THEN ''copy'' ELSE ''upsert'' END);
        RETURN NULL;
    END';
    CREATE TRIGGER log_way BEFORE INSERT ON bars_ohlcv FOR EACH STATEMENT EXECUTE FUNCTION log_way()
"""
#: A COPY of bars fails with an SQLSTATE.
NO_COPY = """
    CREATE FUNCTION no_copy() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF current_query() LIKE ''COPY %'' THEN RAISE SQLSTATE ''{}''; END IF; RETURN NEW; END';
    CREATE TRIGGER no_copy BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION no_copy()
"""


def bar(**changes: Any) -> Row:
    return {
        "provider": "ibkr",
        "symbol": "AAPL",
        "interval": "1m",
        "ts": AT.isoformat(),
        "open": 1.0,
        "high": 2.0,
        "low": 0.5,
        "close": 1.5,
        **changes,
    }


def bars(count: int, **changes: Any) -> list[Row]:
    return [bar(ts=AT.timestamp() + 60 * i, **changes) for i in range(count)]


def message(
    rows: list[Any], *, name: str = "bars", at: float = 0.0, task_id: str = "", is_sent: bool = False, **defaults: Any
) -> DecodedMessage:
    """A message as the task makes it; `at` is when it was enqueued, in seconds after `AT`.

    With `is_sent` its letters are bounded by its size.
    """
    text = json.dumps(rows).encode()
    enqueued_at = round(((AT - EPOCH).total_seconds() + at) * 1e6)
    return DecodedMessage(
        task_id=task_id or uuid4().hex,
        dataset=DATASETS[name],
        rows=read_rows(DATASETS[name], text, defaults),
        enqueued_at=enqueued_at,
        defaults=known_defaults(DATASETS[name], defaults),
        sent=Sent(json.dumps([[name, rows], {"defaults": defaults}, {}]).encode(), JSON, "utf-8") if is_sent else None,
    )


def write(writer: Writer, *messages: DecodedMessage, name: str = "bars") -> list[Counts]:
    return written(writer, *messages, name=name).counts


def written(writer: Writer, *messages: DecodedMessage, name: str = "bars") -> Written:
    """Write, and return all that the writer says of it; raises why a message has to wait for its letters."""
    found = writer.write(decoded(DATASETS[name], messages), messages)
    for why in found.waiting.values():
        raise why
    for counts, rejections, sent in zip(found.counts, found.rejections, messages, strict=True):
        assert counts.rows == len(sent.rows)
        assert counts.rejected == len(rejections)
    assert sum(counts.stale for counts in found.counts) == len(found.late)
    return found


def select(database: Connection, query: str) -> list[tuple[Any, ...]]:
    return database.execute(query).fetchall()


def closes(database: Connection) -> list[float]:
    return [
        close for (close,) in select(database, "SELECT close FROM bars_ohlcv ORDER BY provider, symbol, interval, ts")
    ]


def noise(length: int, seed: int, first: int = 0x20000, last: int = 0x2A000) -> str:
    """A text that does not compress, and so fills an index entry; of four bytes a character."""
    shuffle = random.Random(seed)  # noqa: S311
    return "".join(chr(shuffle.randint(first, last)) for _ in range(length))


def letter(**changes: Any) -> DeadLetter:
    given: dict[str, Any] = {"task_id": "t", "position": 0, "reason": "body: no JSON", "enqueued_at": 0}
    return DeadLetter(**{**given, "pattern": "body: no JSON", **changes})


def ways(database: Connection) -> list[str]:
    return [way for (way,) in select(database, "SELECT way FROM ways ORDER BY number")]
