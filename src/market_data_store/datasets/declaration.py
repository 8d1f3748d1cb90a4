"""How a dataset is declared: its table, its key, and what a message may hold for each column.

A column's type says what a message may hold for it, the primary key is what makes two rows the same, and a column's
`info` carries what SQL cannot say (`Rule`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB

#: Characters. Four key columns of 128 characters at 4 bytes each stay below the 2,704 bytes of a btree entry.
MAX_KEY_LENGTH = 128
#: Characters of a text that is no key, and bytes of a row's metadata.
MAX_TEXT_LENGTH = 65_536
metadata = MetaData()


@dataclass(frozen=True, slots=True)
class Rule:
    """What a message may hold for a column, beyond its type."""

    #: Other names under which producers send it, the first present wins.
    aliases: tuple[str, ...] = ()
    #: Stored in upper case.
    upper: bool = False
    #: Where a row has no value of its own: a hash of these columns, so that a replay has the same. `*` stands for the
    #: fields that the dataset does not know (two trades that differ in their exchange alone are two).
    content_hash: tuple[str, ...] = ()
    #: Where a row has no value of its own: the moment at which its message was enqueued.
    enqueued_at: bool = False
    #: Stored by its first letter, and only these are known.
    letters: str = ""
    #: Also holds the fields of a row that the dataset does not know.
    keeps_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """What can be written under a name: `store.write(name, rows)`."""

    name: str
    table: Table

    @property
    def columns(self) -> tuple[Column[Any], ...]:
        """The columns that a message can fill, in table order."""
        return tuple(c for c in self.table.columns if c.name != ENQUEUED_AT)

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the key columns, in the order by which rows are sorted."""
        return tuple(c.name for c in self.table.primary_key)

    @property
    def values(self) -> tuple[str, ...]:
        """The names of the other columns that a message can fill."""
        return tuple(c.name for c in self.columns if not c.primary_key)


#: The moment at which a row's message was first enqueued; the newest wins (see `writer`).
ENQUEUED_AT = "enqueued_at"


def text_column(name: str, *, key: bool = False, nullable: bool = False, **rule: Any) -> Column[Any]:
    """A text; a key column's is at most `MAX_KEY_LENGTH` characters."""
    # COLLATE "C": keys compare bytewise, as Python sorts them, whatever the database's locale.
    return Column(name, Text(collation="C"), primary_key=key, nullable=nullable, info={"rule": Rule(**rule)})


def number_column(name: str, *aliases: str, key: bool = False, nullable: bool = True) -> Column[Any]:
    """A double."""
    rule = Rule(aliases=aliases)
    return Column(name, DOUBLE_PRECISION, primary_key=key, nullable=nullable and not key, info={"rule": rule})


def count_column(name: str, *aliases: str) -> Column[Any]:
    """An integer of 64 bits, nullable."""
    return Column(name, BigInteger, nullable=True, info={"rule": Rule(aliases=aliases)})


def ts_column(*aliases: str, **rule: Any) -> Column[Any]:
    """The time of a row, a key column."""
    names = ("timestamp", "timestamp_utc", "time", "datetime", *aliases)
    rules = {"rule": Rule(aliases=names, **rule)}
    return Column("ts", DateTime(timezone=True), primary_key=True, info=rules)


def seq_column(*content: str) -> Column[Any]:
    """Tells rows of one instant apart: the sequence as sent, else a hash of `content`."""
    rule = Rule(aliases=("sequence", "trade_id"), content_hash=(*content, "*"))
    return Column("seq", BigInteger, primary_key=True, autoincrement=False, info={"rule": rule})


def metadata_column() -> Column[Any]:
    """What a row holds beyond its fields."""
    return Column("metadata", JSONB, nullable=True, info={"rule": Rule(keeps_unknown=True)})


def declare(name: str, table: str, *columns: Column[Any]) -> Dataset:
    """A dataset of these columns, with the column `enqueued_at`."""
    enqueued_at = Column(ENQUEUED_AT, DateTime(timezone=True), nullable=False)
    return Dataset(name, Table(table, metadata, *columns, enqueued_at))


def provider_column() -> Column[Any]:
    """Who the data come from, a key column."""
    return text_column("provider", key=True, aliases=("vendor", "source"))


def symbol_column() -> Column[Any]:
    """The instrument, a key column."""
    return text_column("symbol", key=True, upper=True, aliases=("ticker",))
