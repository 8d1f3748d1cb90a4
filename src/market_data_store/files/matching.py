"""Decides which columns feed which fields: by the options, then by a vendor's layout, then by their names.

A name alone does not decide: the cells must be such as the field takes. Raises `Undecided` where two columns could be
meant, and where a field that every row needs has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from market_data_store.datasets import Dataset
from market_data_store.files.cells import is_missing, is_number, share
from market_data_store.files.feeds import Feed
from market_data_store.files.layouts import Layout
from market_data_store.files.names import CLOCKS, CLOSE_OR, DATES, is_export, names_for, plain
from market_data_store.files.options import Options, Undecided
from market_data_store.files.tables import Source
from market_data_store.files.times import candidates, given, of_type
from market_data_store.wire.fields import Field, fields_of

_CLOCK_DIGITS = range(1, 7)
_TYPES = {"C", "P", "CALL", "PUT", "CALLS", "PUTS"}


@dataclass(slots=True)
class Matching:
    """The columns of one file, and which of them are taken."""

    source: Source
    options: Options
    layout: Layout | None
    #: Fields that have a value without any column.
    constants: Mapping[str, str]
    #: Columns that may be used; all if None.
    allowed: frozenset[int] | None = None
    taken: set[int] = field(default_factory=set)

    @property
    def dataset(self) -> Dataset:
        """The dataset of the rows."""
        return self.options.dataset

    def feeds(self, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, Feed]:
        """Return the feed of each field; `wanted` has columns by field beyond those of options and layout."""
        fields = {f.name: f for f in fields_of(self.dataset)}
        found: dict[str, Feed] = {}
        explicit = {name: columns for name, columns in self._explicit(fields).items() if name not in self.constants}
        for name, places_given in explicit.items():
            found[name] = self._fed(fields[name], places_given)
        in_layout = {**(self.layout.map if self.layout else {}), **wanted}
        for name, columns in in_layout.items():
            if name in found or name in self.constants or name not in fields:
                continue
            places = [self._place_of(column) for column in columns]
            if None not in places:
                found[name] = self._fed(fields[name], tuple(p for p in places if p is not None))
        # The columns that make a sequence together (id and exchange) are an id and an exchange besides.
        self.taken = {at for feed in found.values() if feed.is_time or len(feed.columns) == 1 for at in feed.columns}
        for f in self._in_order(fields.values()):
            if (
                f.name in found
                or f.name in self.constants
                or (f.rule.nanos_of and f.name not in map(plain, self.source.names))
            ):
                continue
            columns_found = self._by_name(f)
            if columns_found is not None:
                found[f.name] = self._fed(f, columns_found)
                self.taken.update(columns_found)
        if "trade_id" in found and "seq" in found and found["seq"].columns == found["trade_id"].columns:
            del found["seq"]  # a trade_id fills both
        return found

    def _in_order(self, fields: Iterable[Field]) -> list[Field]:
        # Numbers first: `s` is a size if it holds numbers, else a symbol. The id of a trade may be its sequence, too.
        last = ("symbol", "provider", "seq")
        return sorted(fields, key=lambda f: last.index(f.name) + 1 if f.name in last else 0)

    def _explicit(self, fields: Mapping[str, Field]) -> dict[str, tuple[int, ...]]:
        names = {name: f.name for f in fields.values() for name in reversed(f.names)}
        names.update({name: name for name in fields})
        found: dict[str, tuple[int, ...]] = {}
        for name, columns in self.options.columns_of.items():
            if name not in names:
                listed = ", ".join(fields)
                raise Undecided(f"--map {name}: {self.dataset.name} has no such field; use one of {listed}")
            whole = self.source.column("+".join(columns))
            places = [whole] if whole is not None else [self._place_of(column) for column in columns]
            if None in places:
                known = ", ".join(filter(None, self.source.names)) or "no names: give --columns"
                raise Undecided(
                    f"--map {name}={'+'.join(columns)}: {self.source.path} has no such column; it has {known}"
                )
            found[names[name]] = tuple(place for place in places if place is not None)
        return found

    def _place_of(self, name: str) -> int | None:
        allowed = self.allowed
        exact = [
            at for at, other in enumerate(self.source.names) if other == name and (allowed is None or at in allowed)
        ]
        if exact:
            return exact[0]
        near = [at for at in self._usable() if plain(self.source.names[at]) == plain(name) and plain(name)]
        near = near or [at for at in self._usable() if self.source.names[at].strip().lower() == name.lower() and name]
        if near:
            return near[0]
        return self.source.column(name)

    def _usable(self) -> list[int]:
        return [at for at in range(len(self.source.names)) if self.allowed is None or at in self.allowed]

    def cells(self, at: int) -> list[str | None]:
        """The first cells of a column."""
        return [row[at] for row in self.source.sample]

    def _fed(self, f: Field, columns: tuple[int, ...]) -> Feed:
        said = "+".join(self.source.names[at] or f"column {at + 1}" for at in columns)
        type_ = self.source.types[columns[0]] if len(columns) == 1 else "VARCHAR"
        clock = len(columns) == 2 and f.kind.copy_type == "timestamptz" and self._is_clock(columns[1])
        layout = self.layout
        scale = self.options.scale.get(f.name)
        if scale is None and layout is not None and f.name in layout.scale:
            whole = all(
                cell is None or is_missing(cell) or cell.strip().lstrip("+-").isdigit()
                for cell in self.cells(columns[0])
            )
            scale = layout.scale[f.name] if whole or layout.scale_if != "integers" else None
        if scale is not None and f.kind.digits is not None:
            raise Undecided(f"--scale {f.name}: an exact number is stored as it is written; scale it where it is read")
        return Feed(f, columns, said, type_, scale=scale, pads_clock=clock)

    def _by_name(self, f: Field) -> tuple[int, ...] | None:
        if f.name == "ts":
            return self._time()
        if f.name == "volume" and self.dataset.name == "bars" and (base := self._base_volume()) is not None:
            return (base,)
        for name in names_for(self.dataset)[f.name]:
            at = self._named(name, f)
            if at is not None and self._suits(f, at):
                return (at,)
        return self._close() if f.name == "close" and self.dataset.name == "bars" else None

    def _named(self, name: str, f: Field) -> int | None:
        places = [at for at in self._usable() if plain(self.source.names[at]) == name and at not in self.taken]
        if len(places) < 2:
            return places[0] if places else None
        if any(len({row[at] for at in places}) > 1 for row in self.source.sample):
            shown = self.source.names[places[0]]
            raise Undecided(
                f"{self.source.path}: {shown} stands {len(places)} times, with different values; which one is "
                f"{f.name}? Give --columns with a name for each column, or --map {f.name}=COLUMN"
            )
        return places[0]

    def _suits(self, f: Field, at: int) -> bool:
        cells = self.cells(at)
        is_stored_text = f.kind.copy_type == "text" and is_export(self.source.names)  # NULL and NaN may be names
        if not is_stored_text and all(cell is None or is_missing(cell) for cell in cells):
            return not f.required
        match f.kind.copy_type:
            case "float8":
                return share(cells, is_number) >= 0.5
            case "int8" | "int4":
                return f.kind.is_text or share(cells, is_number) >= 0.5
            case "timestamptz" | "date":
                return bool(of_type(self.source.types[at], cells))
        if f.rule.letters:
            return share(cells, lambda cell: cell.strip().upper() in _TYPES) >= 0.5
        return True

    def _time(self) -> tuple[int, ...] | None:
        joined, unread = self._date_and_clock(), None
        names = names_for(self.dataset)["ts"]
        said = given(self.options.time_unit, self.options.time_format) is not None
        for name in names:
            if joined is not None and name in (*CLOCKS, *DATES):
                continue
            at = self._named(name, self._field("ts"))
            if at is None:
                continue
            cells = self.cells(at)
            found = of_type(self.source.types[at], cells)
            has_digits = any(cell is not None and any(map(str.isdigit, cell)) for cell in cells)
            if found or (said and has_digits):
                return (at,)
            unread = at if unread is None and has_digits else unread
        if joined is not None:
            return joined
        times = [at for at in self._usable() if at not in self.taken and self._is_time(at)]
        nameless = [at for at in times if not self.source.names[at]]
        only = nameless[:1] or (times if len(times) == 1 else [])
        if only:
            return (only[0],)
        return None if unread is None else (unread,)  # its unit or its format is asked for

    def _is_time(self, at: int) -> bool:
        readings = of_type(self.source.types[at], self.cells(at))
        return any(r.kind != "epoch" or len(set(self.cells(at))) > 1 for r in readings)

    def _field(self, name: str) -> Field:
        return next(f for f in fields_of(self.dataset) if f.name == name)

    def _date_and_clock(self) -> tuple[int, int] | None:
        usable = [at for at in self._usable() if at not in self.taken]
        dates = [at for at in usable if plain(self.source.names[at]) in DATES and self._is_date(at)]
        clocks = [at for at in usable if plain(self.source.names[at]) in CLOCKS and self._is_clock(at)]
        return (dates[0], clocks[0]) if dates and clocks else None

    def _is_date(self, at: int) -> bool:
        readings = of_type(self.source.types[at], self.cells(at))
        return bool(readings) and not readings[0].has_clock

    def _is_clock(self, at: int) -> bool:
        cells = [cell.strip() for cell in self.cells(at) if cell is not None and not is_missing(cell)]
        return bool(cells) and all(
            (cell.isdigit() and len(cell) in _CLOCK_DIGITS) or (":" in cell and cell[:1].isdigit() and len(cell) < 20)
            for cell in cells
        )

    def _close(self) -> tuple[int, ...] | None:
        """Return the only column that could be the close of a bar; raises `Undecided` if there are several."""
        fitting: list[int] = []
        for name in CLOSE_OR:
            at = self._named(name, self._field("close"))
            if at is not None and at not in fitting and self._suits(self._field("close"), at):
                fitting.append(at)
        names = [self.source.names[at] for at in fitting]
        if len(fitting) > 1:
            ways = " or ".join(f"--map close='{name}'" if " " in name else f"--map close={name}" for name in names)
            raise Undecided(f"{self.source.path}: {' or '.join(names)} could be the close; give {ways}")
        return (fitting[0],) if fitting else None

    def _base_volume(self) -> int | None:
        """Return the one of Volume BTC and Volume USDT that counts the instrument itself."""
        currencies = {
            at: plain(self.source.names[at]).removeprefix("volume")
            for at in self._usable()
            if plain(self.source.names[at]).startswith("volume") and len(plain(self.source.names[at])) > 8
        }
        symbol = self.options.constants.get("symbol") or self.constants.get("symbol")
        if symbol is None:
            at = next(
                (at for at in self._usable() if plain(self.source.names[at]) in ("symbol", "pair", "ticker")), None
            )
            symbol = next((cell for cell in self.cells(at) if cell), None) if at is not None else None
        if symbol is None or len(currencies) < 2:
            return None
        base = [at for at, currency in currencies.items() if plain(symbol).startswith(currency)]
        return base[0] if len(base) == 1 else None


def require_all(matching: Matching, found: Iterable[str]) -> None:
    """Raise `Undecided`, which names the options, if a field that every row needs has no column."""
    present = {*found, *matching.constants}
    missing = [f for f in fields_of(matching.dataset) if f.name not in present and (f.required or f.rule.enqueued_at)]
    if not missing:
        return
    named = {"symbol", "provider", "interval"}
    missing.sort(key=lambda f: f.name not in named)
    ways = [_way(f, named) for f in missing]
    if asked := [f.name for f in missing if f.name in named]:
        one = "symbol" if "symbol" in asked else asked[0]
        ways.insert(len(asked), f"(or --map {one}=COLUMN where the file has it)")
    columns = ", ".join(name or f"column {at + 1} (no name)" for at, name in enumerate(matching.source.names))
    hints = _hints(matching, [f.name for f in missing])
    raise Undecided(
        f"{matching.source.path}: {matching.dataset.name} needs {', '.join(f.name for f in missing)}; "
        f"give {' '.join(ways)}"
        f"{hints}; the file has {columns[:400]}"
    )


def _way(f: Field, named: set[str]) -> str:
    if f.name in named:
        return f"--{f.name} {f.name.upper()}"
    return (
        f"--map {f.name}=COLUMN" if f.kind.copy_type == "float8" else f"--map {f.name}=COLUMN (or --set {f.name}=VALUE)"
    )


def _hints(matching: Matching, missing: Sequence[str]) -> str:
    names = matching.source.names
    hints = []
    if "ts" in missing:
        times = [names[at] for at in range(len(names)) if names[at] and candidates(matching.cells(at))]
        hints += [f"; times are in {', '.join(times[:6])}"] if times else []
    if "close" in missing and (adjusted := [name for name in names if plain(name) in ("adjclose", "adjustedclose")]):
        hints.append(f"; '{adjusted[0]}' is adjusted: --map close='{adjusted[0]}' takes it")
    return "".join(hints)
