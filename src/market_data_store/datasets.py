"""The datasets: for each, its table, key, aliases and limits, in one place.

Adding a dataset is one entry here and one migration. The decoder (`rows`) and the writer follow from the declaration:
a column's type says what a message may hold for it, the primary key is what makes two rows the same, and a column's
`info` carries what SQL cannot say (`Rule`). Columns stand in the order in which they are copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Computed,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DATE, DOUBLE_PRECISION, JSONB

from market_data_store.errors import InvalidMessage

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


def _text(name: str, *, key: bool = False, nullable: bool = False, **rule: Any) -> Column[Any]:
    # COLLATE "C": keys compare bytewise, as Python sorts them, whatever the database's locale.
    return Column(name, Text(collation="C"), primary_key=key, nullable=nullable, info={"rule": Rule(**rule)})


def _number(name: str, *aliases: str, key: bool = False, nullable: bool = True) -> Column[Any]:
    rule = Rule(aliases=aliases)
    return Column(name, DOUBLE_PRECISION, primary_key=key, nullable=nullable and not key, info={"rule": rule})


def _count(name: str, *aliases: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=True, info={"rule": Rule(aliases=aliases)})


def _ts(*aliases: str, **rule: Any) -> Column[Any]:
    names = ("timestamp", "timestamp_utc", "time", "datetime", *aliases)
    rules = {"rule": Rule(aliases=names, **rule)}
    return Column("ts", DateTime(timezone=True), primary_key=True, info=rules)


def _seq(*content: str) -> Column[Any]:
    rule = Rule(aliases=("sequence", "trade_id"), content_hash=(*content, "*"))
    return Column("seq", BigInteger, primary_key=True, autoincrement=False, info={"rule": rule})


def _metadata() -> Column[Any]:
    return Column("metadata", JSONB, nullable=True, info={"rule": Rule()})


def _dataset(name: str, table: str, *columns: Column[Any]) -> Dataset:
    enqueued_at = Column(ENQUEUED_AT, DateTime(timezone=True), nullable=False)
    return Dataset(name, Table(table, metadata, *columns, enqueued_at))


def _provider() -> Column[Any]:
    return _text("provider", key=True, aliases=("vendor", "source"))


def _symbol() -> Column[Any]:
    return _text("symbol", key=True, upper=True, aliases=("ticker",))


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            _dataset(
                "bars",
                "bars_ohlcv",
                _provider(),
                _symbol(),
                _text("interval", key=True, aliases=("timeframe", "resolution")),
                _ts(),
                _number("open", "open_price", nullable=False),
                _number("high", "high_price", nullable=False),
                _number("low", "low_price", nullable=False),
                _number("close", "close_price", nullable=False),
                _number("volume"),
                _number("vwap"),
                _count("trade_count"),
            ),
            _dataset(
                "ticks",
                "tick_data",
                _provider(),
                _symbol(),
                _ts(),
                _seq("price", "size", "bid", "ask"),
                _number("price", "last_price", nullable=False),
                _number("size", "quantity", "qty"),
                _number("bid"),
                _number("ask"),
            ),
            _dataset(
                "quotes",
                "quotes",
                _provider(),
                _symbol(),
                _ts(),
                _seq("bid", "ask", "last", "bid_size", "ask_size", "volume"),
                _number("bid", "bid_price"),
                _number("ask", "ask_price"),
                _number("last", "last_price"),
                _number("bid_size"),
                _number("ask_size"),
                _number("volume"),
            ),
            _dataset(
                "options",
                "options_snap",
                _provider(),
                _symbol(),
                Column("expiry", DATE, primary_key=True, info={"rule": Rule(aliases=("expiration",))}),
                _number("strike", key=True),
                _text("option_type", key=True, aliases=("right",), letters="CP"),
                # Core's OptionSnapshot has no time of its own.
                _ts(enqueued_at=True),
                _number("bid"),
                _number("ask"),
                _number("last"),
                _count("volume"),
                _count("open_interest", "oi"),
                _number("implied_volatility", "iv"),
                _number("delta"),
                _number("gamma"),
                _number("theta"),
                _number("vega"),
                _number("spot", "underlying_price"),
            ),
            _dataset(
                "fundamentals",
                "fundamentals",
                _provider(),
                _symbol(),
                _ts("asof", "as_of"),
                _number("total_assets"),
                _number("total_liabilities"),
                _number("net_income"),
                _number("eps"),
                _metadata(),
            ),
            _dataset(
                "news",
                "news",
                _provider(),
                _ts("published_at"),
                _text("id", key=True, aliases=("news_id",), content_hash=("title", "url")),
                _text("title", aliases=("headline",)),
                _text("symbol", nullable=True, upper=True, aliases=("ticker",)),
                _text("url", nullable=True),
                _number("sentiment_score", "sentiment"),
                _metadata(),
            ),
            _dataset(
                "signals",
                "signals",
                _provider(),
                _symbol(),
                _ts(),
                _text("name", key=True),
                _number("value"),
                _number("score"),
                _metadata(),
            ),
        )
    }
)


def dataset_named(name: object) -> Dataset:
    """The dataset of that name; `InvalidMessage` names the known ones."""
    if isinstance(name, str) and name in DATASETS:
        return DATASETS[name]
    raise InvalidMessage(f"dataset: {str(name)[:80]!r} is unknown; use one of {', '.join(DATASETS)}")


#: Rows and messages that can never be written, with all that a replay needs. `row` is `json`, not `jsonb`: a row may
#: be here just because it holds what jsonb refuses (\u0000). `body` is a message that is unusable as a whole.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    # When it was refused last: a replay that is refused again leaves the letter where it is.
    Column("refused_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("task_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    # Of dataset, row, defaults and body: two foreign messages may have one task id.
    Column("content_hash", BigInteger, nullable=False),
    Column("dataset", Text),
    Column("reason", Text, nullable=False),
    Column("sqlstate", Text),
    Column("row", JSON),
    Column("defaults", JSON),
    Column("body", LargeBinary),
    Column(ENQUEUED_AT, DateTime(timezone=True), nullable=False),
    # A message that is delivered again leaves no second letter.
    Index("dead_letters_origin", "task_id", "position", "content_hash", unique=True),
)

#: Messages that a pool process deals with alone, see `attempts`. Unlogged: a crash of Postgres makes them void anyway.
attempts = Table(
    "attempts",
    metadata,
    Column("task_id", Text, primary_key=True),
    Column("deaths", Integer, nullable=False),
    Column("backend", Integer, nullable=False),
    Column("backend_start", DateTime(timezone=True), nullable=False),
    Column("server_start", DateTime(timezone=True), nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    prefixes=["UNLOGGED"],
)

#: The runs of producers' and loaders' jobs, as the predecessor keeps them.
job_runs = Table(
    "job_runs",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_name", Text, nullable=False),
    Column("dataset_name", Text),
    Column("provider", Text),
    Column("mode", Text, nullable=False, server_default=text("'live'")),
    Column("status", Text, nullable=False, server_default=text("'running'")),
    Column("config_fingerprint", Text),
    Column("pipeline_version", Text),
    Column("rows_written", BigInteger, nullable=False, server_default=text("0")),
    Column("rows_failed", BigInteger, nullable=False, server_default=text("0")),
    Column("symbols", ARRAY(Text)),
    Column("min_ts", DateTime(timezone=True)),
    Column("max_ts", DateTime(timezone=True)),
    Column("error_message", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("completed_at", DateTime(timezone=True)),
    Column(
        "elapsed_ms",
        BigInteger,
        Computed("(extract(epoch from completed_at - started_at) * 1000)::bigint", persisted=True),
    ),
    # A run that is `running` and has not changed for long is stuck.
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Index("job_runs_started_at", "started_at"),
)
