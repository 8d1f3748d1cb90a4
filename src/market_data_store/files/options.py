"""What the user says about a file, and the error that asks for what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage


class Undecided(InvalidMessage):
    """A file can be understood in several ways or in none; the message names the option that decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a file is to be read; what is not given is detected."""

    dataset: Dataset
    #: The same value for all rows, by field: `--provider`, `--symbol`, `--interval`, `--set`.
    constants: Mapping[str, str] = field(default_factory=dict)
    #: By field, the columns that feed it; several are joined with a space.
    columns_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Names of the columns of a file without header, or of JSON arrays.
    names: tuple[str, ...] = ()
    #: Lines to skip, the header among them.
    skip: int | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    time_unit: str | None = None
    time_format: str | None = None
    time_zone: str | None = None
    #: Factors by field.
    scale: Mapping[str, Decimal] = field(default_factory=dict)
    #: Where in a JSON document the list of records is, as `data.candles`.
    records: str | None = None
    #: Further texts that stand for no value.
    nulls: tuple[str, ...] = ()
    reader: str | None = None
    #: A file of the user's own layouts.
    layouts: Path | None = None
    #: Whether the last of several rows with one key wins.
    last_wins: bool = False
