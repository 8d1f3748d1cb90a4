"""What fills a field: columns of the file, and the SQL that makes of their cells what the field stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from market_data_store.files.numbers import Style, finite, scaled
from market_data_store.files.tables import literal, quoted
from market_data_store.files.times import Reading
from market_data_store.wire.fields import Field
from market_data_store.wire.text import SPACES

#: Kinds whose cells a worker reads as they are: lists of numbers are JSON, and exact numbers lose no digit.
_TEXTS = ("text", "jsonb", "text[]", "float8[]", "numeric")
_JSONS = ("jsonb", "text[]", "float8[]")
#: DuckDB's types that need no text.
_NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE")
_PLAIN = Style()
#: What is removed around a text, as SQL.
_SPACES = literal("".join(c for c in SPACES if c not in "\x1c\x1d\x1e\x1f"))
#: In a row, names of what is beside the fields.
LINE, ODD, SKIP = "#line", "#odd", "#skip"


@dataclass(frozen=True, slots=True)
class Feed:
    """The columns of one field."""

    field: Field
    columns: tuple[int, ...]
    #: Their names, for people.
    said: str
    #: DuckDB's type of the column, if it is one.
    type: str = "VARCHAR"
    reading: Reading | None = None
    scale: Decimal | None = None
    style: Style = _PLAIN
    #: Whether the second column is a time of day in digits, without its zeros in front.
    pads_clock: bool = False
    #: Whether spaces around a time are removed, which takes as long as to read it.
    trims: bool = True

    @property
    def name(self) -> str:
        """The field's name."""
        return self.field.name

    @property
    def is_number(self) -> bool:
        """Whether it is stored as a number of any kind."""
        return self.field.kind.copy_type in ("float8", "int8", "int4") and not self.is_sequence

    @property
    def is_sequence(self) -> bool:
        """Whether it is a number or an id of any text."""
        return self.field.kind.copy_type == "int8" and self.field.kind.is_text

    @property
    def is_time(self) -> bool:
        """Whether it is a time or a date."""
        return self.field.kind.copy_type in ("timestamptz", "date")

    @property
    def is_numeric_column(self) -> bool:
        """Whether the file itself holds numbers."""
        return self.type in _NUMERIC or self.type.startswith("DECIMAL") or self.type in ("HUGEINT", "UBIGINT")

    @property
    def own_text(self) -> str:
        """SQL of the text of the cells, made of the columns of the file."""
        copy_type = self.field.kind.copy_type
        # Of a list, a text of DuckDB's is no JSON.
        as_json = copy_type in _JSONS and self.type.endswith((")", "]"))
        cast = "to_json({})::VARCHAR" if as_json else "{}" if self.type == "VARCHAR" else "{}::VARCHAR"
        parts = [cast.format(f"c{at}") for at in self.columns]
        as_it_is = copy_type in _TEXTS or (self.is_number and not self.style.is_rich)
        if len(parts) == 1 and as_it_is:  # a cast to a number ignores spaces
            return parts[0]
        trimmed = [f"trim({part}, {_SPACES})" for part in parts]
        if len(trimmed) == 1:
            return trimmed[0] if self.trims else parts[0]
        if self.pads_clock:
            clock, digits = trimmed[1], "[0-9]{1,6}"
            trimmed[1] = f"CASE WHEN regexp_full_match({clock}, '{digits}') THEN lpad({clock}, 6, '0') ELSE {clock} END"
        return f"CASE WHEN {parts[0]} IS NOT NULL THEN concat_ws(' ', {', '.join(trimmed)}) END"

    @property
    def text(self) -> str:
        """SQL of the text of the cells, behind `Variant.over`."""
        return self.own_text if self.own_text == f"c{self.columns[0]}" else f'"t_{self.name}"'

    @property
    def value(self) -> str:
        """SQL of the stored value, behind `Variant.over`; null for none, and for what cannot be read."""
        return f'"v_{self.name}"'

    @property
    def own_number(self) -> str | None:
        """SQL of the number that the text of an integer is, made of `text`, where its style is rich."""
        is_integer = self.field.kind.copy_type in ("int8", "int4") and not self.is_sequence
        return self.style.rich(self.text) if is_integer and self.style.is_rich else None

    @property
    def own_value(self) -> str:
        """SQL of the stored value, made of `text`."""
        copy_type = self.field.kind.copy_type
        if self.reading is not None and copy_type == "timestamptz":
            return self.reading.sql(self._source)
        if self.reading is not None and copy_type == "date":
            ticks = self.reading.sql(self._source)
            return f"epoch_ms((({ticks}) // {1_000_000 if self.reading.in_nanoseconds else 1_000})::BIGINT)::DATE"
        if copy_type == "float8":
            if self.is_numeric_column and not self.type.startswith("DECIMAL"):
                return scaled(finite(f"c{self.columns[0]}::DOUBLE"), self.scale)
            return self.style.number(self.text, self.scale)
        if self.is_sequence:
            return f"nullif({self.text}, '')"
        if copy_type in ("int8", "int4"):
            return self.style.integer(self.text, f'"n_{self.name}"')
        if copy_type == "bool":
            word = f"lower({self.text})"
            true, false = "('true', 't', 'yes', '1')", "('false', 'f', 'no', '0')"
            return f"CASE WHEN {word} IN {true} THEN true WHEN {word} IN {false} THEN false END"
        if copy_type == "text[]":
            text = self.text
            items = f"from_json({text}, '[\"VARCHAR\"]')"
            return f"CASE WHEN {text} LIKE '[%' AND json_valid({text}) THEN {items} WHEN {text} <> '' THEN [{text}] END"
        return self._without_nulls(self.text)

    @property
    def is_odd(self) -> str:
        """SQL that says whether the cells hold something that cannot be read."""
        copy_type = self.field.kind.copy_type
        if copy_type in _TEXTS or self.is_sequence or (self.is_time and self.reading is None):
            return "false"
        if copy_type == "float8" and self.is_numeric_column:
            return "false"
        given = f"c{self.columns[0]} IS NOT NULL"
        unread = f"{self.value} IS NULL"
        if copy_type == "float8" and not self.style.is_rich:
            unread = f"NOT coalesce(isfinite({self.value}), false)"
        # Before the file has been looked at, `NaN` and the like count too: they show that more than a cast is needed.
        if self.style.is_rich or self.is_numeric_column or not self.is_number:
            given += f" AND NOT ({self.style.is_null(self.text)})"
        return f"coalesce({unread} AND {given}, false)"

    @property
    def is_fine(self) -> str | None:
        """SQL that says at the least cost whether nothing is wrong with the cells; None if nothing can be."""
        if self.field.required and not self.is_sequence:
            present = f"{self.value} IS NOT NULL"
        elif self.is_odd == "false":
            return None
        else:
            present = f"(c{self.columns[0]} IS NULL OR {self.value} IS NOT NULL)"
        if self.field.kind.copy_type == "float8" and not self.style.is_rich and not self.is_numeric_column:
            return f"{present} AND coalesce(isfinite({self.value}), true)"
        return present

    @property
    def _source(self) -> str:
        typed = self.reading is not None and self.reading.kind in ("typed", "zoned")
        if typed:
            return f"c{self.columns[0]}"
        if self.reading is not None and self.reading.zone:
            return f"regexp_extract({self.text}, '^(.*[0-9](?: ?[AaPp][Mm])?) ', 1)"
        return self.text

    def _without_nulls(self, text: str) -> str:
        nulls = ", ".join(map(literal, ("", *self.style.nulls)))
        return f"CASE WHEN {text} NOT IN ({nulls}) THEN {text} END"


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the rows that a line of the file makes."""

    feeds: tuple[Feed, ...]
    #: What is the same in all rows.
    constants: Mapping[str, str]
    #: Columns that no field takes, and the names under which they are kept.
    kept: tuple[tuple[str, int], ...] = ()
    #: Whether a line without any value makes no row.
    skips_empty: bool = False
    label: str = ""
    by_name: Mapping[str, Feed] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {feed.name: feed for feed in self.feeds})

    def over(self, table: str) -> str:
        """Return SQL of a table with the texts, then the values, of all feeds: each is made once."""
        texts = [f'{f.own_text} AS "t_{f.name}"' for f in self.feeds if f.text.startswith('"')]
        numbers = [f'{f.own_number} AS "n_{f.name}"' for f in self.feeds if f.own_number is not None]
        values = [f'{f.own_value} AS "v_{f.name}"' for f in self.feeds]
        for columns in filter(None, (texts, numbers, values)):
            table = f"(SELECT *, {', '.join(columns)} FROM {table})"
        return table

    @property
    def sequence(self) -> Feed | None:
        """The feed of numbers or ids, if any."""
        return next((feed for feed in self.feeds if feed.is_sequence), None)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The fed fields that tell rows of one time apart; a trade_id is the sequence of a trade."""
        ids = () if "seq" in self.by_name else ("trade_id",)
        return tuple(f.name for f in self.feeds if (f.field.key and f.name != "ts") or f.name in ids)

    def with_feeds(self, changed: Mapping[str, Feed]) -> Variant:
        """Return the variant with other feeds of these fields."""
        feeds = tuple(changed.get(feed.name, feed) for feed in self.feeds)
        return replace(self, feeds=feeds)

    def skipped(self, width: int) -> str:
        """SQL that says whether a line holds nothing."""
        cells = [f"c{at}::VARCHAR" for at in range(width)] or ["bad"]
        if self.skips_empty:
            values = [at for feed in self.feeds if not feed.field.key for at in feed.columns]
            cells = [f"nullif(c{at}::VARCHAR, '')" for at in values] or cells
        return f"(bad IS NULL AND coalesce({', '.join(cells)}) IS NULL)"

    def metadata(self, kept: str) -> str | None:
        """SQL of the row's metadata as JSON: what is kept, and the file's own."""
        own = self.by_name.get("metadata")
        if own is None:
            return kept if self.kept else None
        if not self.kept:
            return own.value
        return (
            f"CASE WHEN {own.value} IS NULL THEN {kept} WHEN ({kept}) IS NULL OR NOT json_valid({own.value}) "
            f"THEN {own.value} ELSE json_merge_patch({kept}, {own.value})::VARCHAR END"
        )

    def odd(self) -> str:
        """SQL of the cells of a row that cannot be read, by field, as JSON; null if there are none."""
        checked = [feed for feed in self.feeds if feed.is_odd != "false"]
        if not checked:
            return "NULL::VARCHAR"
        fields = ", ".join(f"{quoted(f.name)} := CASE WHEN {f.is_odd} THEN {f.text} END" for f in checked)
        some = " OR ".join(f"({f.is_odd})" for f in checked)
        return f"CASE WHEN {some} THEN json_merge_patch('{{}}', to_json(struct_pack({fields})))::VARCHAR END"
