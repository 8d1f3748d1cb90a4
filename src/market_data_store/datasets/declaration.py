"""How a dataset is declared: its table, its key, and what a message may hold for each column.

A column's type decides which values a message may hold for it. The primary key decides when two rows are the same row.
A column's `info` holds what SQL cannot express (`Rule`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB

#: Maximum length of a text in the key, in characters. Four key columns of 128 characters with 4 bytes each stay below
#: the 2,704 bytes of a btree entry.
MAX_KEY_LENGTH = 128
#: Maximum length of a text outside the key, in characters, and of a row's metadata, in bytes.
MAX_TEXT_LENGTH = 65_536
metadata = MetaData()
#: What becomes of a field that a dataset does not know: it is kept in `metadata`; its row is rejected; or it is kept,
#: and the next migration adds a column for it.
Contract = Literal["keep", "reject", "add"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a message may hold for a column, beyond its type."""

    #: Other names under which producers may send it; the first one that is present wins.
    aliases: tuple[str, ...] = ()
    #: Whether whitespace around the text is removed, because it is a name or an id.
    trimmed: bool = False
    #: Whether a number is accepted as its text: some feeds number their trades, sides or venues.
    numbered: bool = False
    #: A row without a value gets a hash of these columns, so that a replay gets the same value. `*` stands for the
    #: fields that the dataset does not know: two trades that differ only in their exchange are two trades.
    content_hash: tuple[str, ...] = ()
    #: Whether a row without a value gets the time at which its message was enqueued.
    enqueued_at: bool = False
    #: If not empty, only the text's first letter is stored, and it must be one of these.
    letters: str = ""
    #: Whether the column also holds the fields of a row that the dataset does not know.
    keeps_unknown: bool = False
    #: If given, the smallest and the largest number that the column takes.
    within: tuple[int, int] | None = None
    #: If not empty, the column holds the nanoseconds of this column beyond its microseconds.
    nanos_of: str = ""
    #: Whether the column came after version 0.4, which knew none of its names. What is sent under them counts in a
    #: content hash as an unknown field, so that the hashes of that version stay.
    later: bool = False
    #: Whether nobody has declared the column: a value that it cannot hold stays in `metadata`.
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """A name that takes rows, as in `store.write(name, rows)`, and the table that they are written to."""

    name: str
    table: Table
    #: Fields that producers send and nobody needs: known, and not stored.
    ignored: frozenset[str] = frozenset()
    #: What becomes of a field that it does not know.
    unknown: Contract = "keep"
    #: How its declaration partitions the table (`spans.Span`); MDS_PARTITIONS wins over it.
    partition: str | None = None

    @property
    def columns(self) -> tuple[Column[Any], ...]:
        """The columns that a message can fill, in table order: the key first."""
        return tuple(c for c in self.table.columns if c.name != ENQUEUED_AT)

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the key columns, in the order in which they sort rows."""
        return tuple(c.name for c in self.table.primary_key)

    @property
    def values(self) -> tuple[str, ...]:
        """The names of the columns outside the key that a message can fill, in table order."""
        return tuple(c.name for c in self.columns if not c.primary_key)


#: The column with the time at which a row's message was first enqueued; the newest message wins (see
#: `postgres.writer`).
ENQUEUED_AT = "enqueued_at"


def text_column(name: str, *, key: bool = False, nullable: bool = False, **rule: Any) -> Column[Any]:
    """Declare a text column; in the key it is a name of at most `MAX_KEY_LENGTH` characters."""
    # COLLATE "C": keys compare bytewise, as Python sorts them, whatever the database's locale.
    rules = {"rule": Rule(**{"trimmed": key, **rule})}
    return Column(name, Text(collation="C"), primary_key=key, nullable=nullable, info=rules)


def number_column(name: str, *aliases: str, key: bool = False, nullable: bool = True) -> Column[Any]:
    """Declare a column of doubles."""
    rule = Rule(aliases=aliases)
    return Column(name, DOUBLE_PRECISION, primary_key=key, nullable=nullable and not key, info={"rule": rule})


def count_column(name: str, *aliases: str) -> Column[Any]:
    """Declare a nullable column of 64-bit integers."""
    return Column(name, BigInteger, nullable=True, info={"rule": Rule(aliases=aliases)})


def ts_column(*aliases: str, **rule: Any) -> Column[Any]:
    """Declare the key column `ts`, the time of a row."""
    names = ("timestamp", "timestamp_utc", "time", "datetime", *aliases)
    rules = {"rule": Rule(aliases=names, **rule)}
    return Column("ts", DateTime(timezone=True), primary_key=True, info=rules)


def seq_column(*content: str) -> Column[Any]:
    """Declare the key column `seq`, which separates rows of one instant: the sequence sent, or a hash of `content`."""
    rule = Rule(aliases=("sequence", "trade_id"), content_hash=(*content, "*"))
    return Column("seq", BigInteger, primary_key=True, autoincrement=False, info={"rule": rule})


def metadata_column(**rule: Any) -> Column[Any]:
    """Declare the column `metadata`, which holds what a row has beyond the dataset's fields."""
    return Column("metadata", JSONB, nullable=True, info={"rule": Rule(keeps_unknown=True, **rule)})


def later_column(name: str, type_: Any, *aliases: str, **rule: Any) -> Column[Any]:
    """Declare a nullable column that came after version 0.4."""
    return Column(name, type_, nullable=True, info={"rule": Rule(aliases=aliases, later=True, **rule)})


def code_column(name: str, *aliases: str) -> Column[Any]:
    """Declare a later column of names that may be numbers, such as `side` or `trade_id`."""
    return later_column(name, Text(collation="C"), *aliases, trimmed=True, numbered=True)


def venue_column() -> Column[Any]:
    """Declare the column `venue`, where a trade or a quote was made."""
    return code_column("venue", "exchange", "market", "ex")


def received_column() -> Column[Any]:
    """Declare the column `received_at`, when whoever recorded the row received it."""
    return later_column(
        "received_at", DateTime(timezone=True), "receipt_timestamp", "receive_timestamp", "local_timestamp", "ts_recv"
    )


def nanos_column() -> Column[Any]:
    """Declare the column `nanos`, the nanoseconds of `ts` beyond its microseconds."""
    return later_column("nanos", Integer, within=(0, 999), nanos_of="ts")


def conditions_column() -> Column[Any]:
    """Declare the column `conditions`, a list of texts."""
    return later_column("conditions", ARRAY(Text), "condition_codes", "sale_conditions", numbered=True)


def final_column() -> Column[Any]:
    """Declare the column `final`, whether a bar no longer changes."""
    return later_column("final", Boolean, "closed", "is_closed", "is_final", "complete")


def declare(
    name: str,
    table: str,
    *columns: Column[Any],
    added: tuple[Column[Any], ...] = (),
    ignored: tuple[str, ...] = (),
) -> Dataset:
    """Declare a dataset with these columns and the column `enqueued_at`; behind it, those that migrations added."""
    enqueued_at = Column(ENQUEUED_AT, DateTime(timezone=True), nullable=False)
    return Dataset(name, Table(table, metadata, *columns, enqueued_at, *added), frozenset(ignored))


def provider_column() -> Column[Any]:
    """Declare the key column `provider`, the source of the data."""
    return text_column("provider", key=True, aliases=("vendor", "source"))


def symbol_column() -> Column[Any]:
    """Declare the key column `symbol`, the instrument."""
    return text_column("symbol", key=True, aliases=("ticker",))
