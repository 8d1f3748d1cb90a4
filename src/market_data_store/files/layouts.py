"""The layouts of vendors: a table in layouts.toml, read and matched with the columns of a file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from market_data_store.datasets import DATASETS
from market_data_store.errors import InvalidMessage
from market_data_store.files.cells import is_missing, is_number
from market_data_store.files.names import plain
from market_data_store.files.options import Undecided
from market_data_store.wire.moments import WINDOWS

#: A layout is recognised if at least this share of the first cells of each column is as its shape says.
_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Part:
    """One of the rows that a line holds."""

    map: Mapping[str, tuple[str, ...]]
    set: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of a vendor's files; layouts.toml describes the fields."""

    name: str
    title: str
    dataset: str
    names: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    shape: tuple[str, ...] = ()
    map: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    set: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Part, ...] = ()
    zone: str | None = None
    unit: str | None = None
    format: str | None = None
    scale: Mapping[str, Decimal] = field(default_factory=dict)
    scale_if: str = ""
    day: str = ""
    records: str | None = None


@cache
def known(own: Path | None = None) -> Mapping[str, Layout]:
    """Return the layouts by name, with those of a user's file; raises `InvalidMessage` for a wrong file."""
    found = _parsed("layouts.toml", files("market_data_store.files").joinpath("layouts.toml").read_text("utf-8"))
    if own is not None:
        try:
            found |= _parsed(str(own), own.read_text("utf-8"))
        except OSError as error:
            raise InvalidMessage(f"--layouts {own}: {error.strerror or error}") from error
    return found


def named(name: str, own: Path | None) -> Layout:
    """Return the layout of `--reader`; raises `Undecided` for an unknown name."""
    found = known(own)
    if name not in found:
        near = [other for other in found if other.startswith(name.partition("-")[0])] or sorted(found)
        raise Undecided(
            f"--reader {name}: there is no such reader; --list-readers lists them, such as {', '.join(near[:6])}"
        )
    return found[name]


def _parsed(where: str, text: str) -> dict[str, Layout]:
    try:
        tables = tomllib.loads(text)
        return {name: _layout(name, table) for name, table in tables.items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, InvalidOperation) as error:
        raise InvalidMessage(f"{where}: not a file of layouts: {error}") from error


def _layout(name: str, table: Mapping[str, Any]) -> Layout:
    values = dict(table)
    if values.get("dataset") not in DATASETS:
        raise ValueError(f"[{name}] dataset: {values.get('dataset')!r} is not one of {', '.join(DATASETS)}")
    return Layout(
        name=name,
        title=values.pop("title", name),
        names=tuple(values.pop("names", ())),
        needs=tuple(values.pop("needs", ())),
        shape=tuple(values.pop("shape", ())),
        map=_columns(values.pop("map", {})),
        rows=tuple(Part(_columns(row.get("map", {})), row.get("set", {})) for row in values.pop("rows", ())),
        scale={of: Decimal(factor) for of, factor in values.pop("scale", {}).items()},
        **values,
    )


def _columns(table: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(columns.split("+")) for name, columns in table.items()}


def recognised(
    layouts: Mapping[str, Layout],
    dataset: str,
    names: Sequence[str],
    sample: Sequence[Sequence[str | None]],
    *,
    has_header: bool,
) -> Layout | None:
    """Return the layout that fits the columns, if they leave no doubt."""
    of_dataset = [layout for layout in layouts.values() if layout.dataset == dataset]
    if has_header:
        present = {plain(name) for name in names} | {name.strip().lower() for name in names}
        fitting = [x for x in of_dataset if x.needs and _exact(x) <= present]
        most = max((len(layout.needs) for layout in fitting), default=0)
        best = [layout for layout in fitting if len(layout.needs) == most]
        return best[0] if len(best) == 1 else None
    shaped = [x for x in of_dataset if x.shape and fits_shape(x.shape, sample) and fits_prices(x, sample)]
    return shaped[0] if len(shaped) == 1 else None


def _exact(layout: Layout) -> set[str]:
    """The names that a file must have; those with a number in front as they are written."""
    return {name if re.match(r"\d+\.", name) else plain(name) for name in layout.needs}


def alike(layouts: Mapping[str, Layout], dataset: str, sample: Sequence[Sequence[str | None]]) -> list[str]:
    """Return the names of readers that a file without header could have, by the number of its columns."""
    width = len(sample[0]) if sample else 0
    return [x.name for x in layouts.values() if x.dataset == dataset and width and len(x.names) == width]


def fits_shape(shape: Sequence[str], sample: Sequence[Sequence[str | None]]) -> bool:
    """Return whether the columns look as a layout says."""
    if not sample or len(sample[0]) != len(shape):
        return False
    columns = zip(*sample, strict=True)
    return all(_fits(kinds, column) for kinds, column in zip(shape, columns, strict=True))


def _fits(kinds: str, column: Sequence[str | None]) -> bool:
    given = [cell.strip() for cell in column if cell is not None and not is_missing(cell)]
    if kinds == "*":
        return True
    for kind in [kinds] if kinds.startswith("/") else [kind.strip() for kind in kinds.split("|")]:
        test = _test(kind)
        if given and sum(map(test, given)) >= _SHARE * len(given):
            return True
    return False


def _test(kind: str) -> Callable[[str], bool]:
    if kind.startswith("/"):
        pattern = re.compile(kind.strip("/"))
        return lambda text: pattern.fullmatch(text) is not None
    if kind in WINDOWS:
        first, last = WINDOWS[kind]
        return lambda text: text.isdigit() and first <= int(text) <= last
    tests: dict[str, Callable[[str], bool]] = {
        "number": is_number,
        "integer": lambda text: text.lstrip("+-").partition(".")[0].isdigit() and not text.partition(".")[2].strip("0"),
        "bool": lambda text: text.lower() in ("true", "false"),
        "text": lambda text: not is_number(text),
    }
    return tests[kind]


def fits_prices(layout: Layout, sample: Sequence[Sequence[str | None]]) -> bool:
    """Return whether the columns that would be high and low hold the highest and the lowest price of each row."""
    places = {name: at for at, name in enumerate(layout.names)}
    if layout.dataset != "bars" or not {"open", "high", "low", "close"} <= places.keys():
        return True
    for row in sample:
        try:
            open_, high, low, close = (float(row[places[name]] or "nan") for name in ("open", "high", "low", "close"))
        except ValueError:
            continue
        if high < max(open_, close, low) or low > min(open_, close):
            return False
    return True
