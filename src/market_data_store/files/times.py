"""How the texts or numbers of a column are times: candidates by the first rows, and SQL that reads the whole column.

A reading gives microseconds since 1970, or nanoseconds where the file has them, as if the clock were UTC's; `zones`
does the rest. A candidate must fit all rows. Where several do, or none, the caller asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from market_data_store.wire.moments import DATE, UNITS, WINDOWS

_ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?P<offset> ?(?:[Zz]|UTC|[+-]\d\d(?::?\d\d)?))?)?", re.ASCII
)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+]?\d+)?", re.ASCII)
#: The name of a zone behind a time, as Interactive Brokers writes it.
_ZONE_NAME = re.compile(
    r"(.*\d(?: ?[AaPp][Mm])?) +([A-Z][A-Za-z]+(?:/[A-Za-z_+-]+\d*)+|UTC|GMT|E[SD]T|C[SD]T|M[SD]T|P[SD]T)"
)
_ZONES = {"EST": "America/New_York", "EDT": "America/New_York", "CST": "America/Chicago", "CDT": "America/Chicago"}
_ZONES |= {"MST": "America/Denver", "MDT": "America/Denver", "PST": "America/Los_Angeles", "PDT": "America/Los_Angeles"}

_DAYS = (
    "%Y-%m-%d %Y/%m/%d %Y.%m.%d %Y%m%d %d/%m/%Y %m/%d/%Y %d.%m.%Y %m.%d.%Y %d-%m-%Y %m-%d-%Y %d/%m/%y %m/%d/%y "
    "%d.%m.%y %m.%d.%y %d-%m-%y %m-%d-%y %y/%m/%d %y.%m.%d %y-%m-%d %d-%b-%Y %d-%b-%y %d/%b/%Y %d%b%Y %Y-%b-%d %b-%d-%Y"
)
_WORDY = (
    "%d %b %Y|%d %b %y|%b %d, %Y|%b %d %Y|%b %d, %y|%d %B %Y|%B %d, %Y|%B %d %Y|%a %b %d %Y|%a, %d %b %Y|%Y %b %d"
    "|%d-%B-%Y|%A, %B %d, %Y"
)
_CLOCKS = "%H:%M:%S|%H:%M|%H:%M:%S.%f|%H:%M:%S:%f|%H%M%S|%H%M|%I:%M:%S %p|%I:%M %p|%I:%M%p|%I-%p|%I:%M:%S%p|%I %p|%H"
_BETWEEN = (" ", "T", ", ", "  ", "-", "_", ",", ";")
_OFFSETS = ("%z", " %z", " GMT%z", " UTC%z")
#: A date that also reads with its year last is asked about only if that year could be meant.
_YEAR_FIRST = "%y"


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a column."""

    #: `iso`, `epoch`, `date` (YYYYMMDD), `format`, `typed` (of a Parquet file), `zoned` (typed, with a zone), or `day`
    #: (milliseconds of a day).
    kind: str
    #: The unit of an epoch, or the format.
    detail: str = ""
    #: Whether it says an instant, whatever the zone is.
    is_absolute: bool = False
    has_clock: bool = True
    #: Whether the file has nanoseconds.
    in_nanoseconds: bool = False
    #: Whether an epoch must lie between 1973 and 2100: its unit was judged by that.
    is_judged: bool = True
    #: The zone that stands behind every time.
    zone: str = ""

    @property
    def said(self) -> str:
        """The reading in words."""
        match self.kind:
            case "epoch":
                return {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}[self.detail]
            case "date":
                return "YYYYMMDD"
            case "format":
                return self.detail
        return "ISO 8601" if self.kind == "iso" else "times"

    def sql(self, text: str) -> str:
        """Return SQL of the ticks of a text column's value, null for what does not fit."""
        match self.kind:
            case "epoch":
                return self._epoch(text)
            case "date":
                eight = f"regexp_full_match({text}, '[0-9]{{8}}(\\.0*)?')"
                return f"CASE WHEN {eight} THEN epoch_us(try_strptime(left({text}, 8), '%Y%m%d')) END"
            case "day":
                number = f"TRY_CAST({text} AS BIGINT)"
                inside = f"regexp_full_match({text}, '[0-9]+') AND {number} < 86400000"
                return f"CASE WHEN {inside} THEN epoch_us(DATE '{self.detail}') + {number} * 1000 END"
            case "typed" | "zoned":
                return f"epoch_ns({text})" if self.in_nanoseconds else f"epoch_us({text}::TIMESTAMP)"
            case "format":
                # DuckDB's %f reads up to nine digits and keeps six.
                return self._with_nanos(
                    f"epoch_us(try_strptime({text}, '{self.detail.replace(chr(39), chr(39) * 2)}'))", text
                )
        # A cast to TIMESTAMP reads an offset and ignores it.
        cast = f"TRY_CAST({text} AS TIMESTAMP{'TZ' * self.is_absolute})"
        # It also reads words, such as infinity.
        return self._with_nanos(f"CASE WHEN {text}[5] = '-' THEN epoch_us({cast}) END", text)

    def _with_nanos(self, microseconds: str, text: str) -> str:
        if not self.in_nanoseconds:
            return microseconds
        beyond = f"rpad(regexp_extract({text}, '[.][0-9]{{6}}([0-9]{{1,3}})', 1), 3, '0')::BIGINT"
        return f"({microseconds}) * 1000 + {beyond}"

    def _epoch(self, text: str) -> str:
        unit = UNITS[self.detail]
        first, last = WINDOWS[self.detail]
        integer = f"CASE WHEN NOT contains({text}, '.') THEN TRY_CAST({text} AS BIGINT) END"
        bounds = (
            f"BETWEEN {first} AND {last}"
            if self.is_judged
            else f"BETWEEN {-9_000_000_000_000_000_000 // unit} AND {9_000_000_000_000_000_000 // unit}"
        )
        if self.in_nanoseconds:
            ticks = f"(TRY_CAST({text} AS DECIMAL(38, 9)) * {unit})::BIGINT"
            return f"CASE WHEN TRY_CAST({text} AS DECIMAL(38, 9)) {bounds} THEN {ticks} END"
        factor = f"* {unit // 1_000}" if unit >= 1_000 else f"// {1_000 // unit}"
        return f"CASE WHEN ({integer}) {bounds} THEN TRY_CAST({text} AS BIGINT) {factor} END"


def candidates(cells: Sequence[str | None]) -> list[Reading]:
    """Return the readings that fit most of the first cells and are worth a look; none if these are not times."""
    texts = list(dict.fromkeys(cell.strip() for cell in cells if cell is not None and cell.strip()))[:300]
    found: list[tuple[int, Reading]] = []
    if not texts:
        return []
    named = [match for match in map(_ZONE_NAME.fullmatch, texts) if match]
    if len(named) == len(texts) and len({match[2] for match in named}) == 1 and named[0][2] not in ("UTC", "GMT"):
        zone = _ZONES.get(named[0][2], named[0][2])
        inner = candidates([match[1] for match in named])
        return [Reading(r.kind, r.detail, has_clock=r.has_clock, zone=zone) for r in inner]
    numbers = [text for text in texts if _NUMBER.fullmatch(text)]
    if len(numbers) * 2 > len(texts):
        return _of_numbers(numbers)
    iso = [match for match in map(_ISO.fullmatch, texts) if match]
    if len(iso) * 2 > len(texts):
        absolute = any(match["offset"] for match in iso)
        fine = any(re.search(r"\.\d{7,}", match[0]) for match in iso)
        return [Reading("iso", is_absolute=absolute, has_clock=any(len(m[0]) > 10 for m in iso), in_nanoseconds=fine)]
    for format_ in _formats_of(texts):
        number = sum(_fits(text, format_) for text in texts)
        if number * 2 > len(texts):
            clock = "%H" in format_ or "%I" in format_
            fine = format_.endswith("%f") and any(re.search(r"\.\d{7,}", text) for text in texts)
            found.append((number, Reading("format", format_, "%z" in format_, clock, fine)))
    return [reading for _, reading in sorted(found, key=lambda item: -item[0])]


def _of_numbers(texts: Sequence[str]) -> list[Reading]:
    found: list[Reading] = []
    values = [float(text) for text in texts]
    fine = any(not value.is_integer() for value in values) or not all(map(_INTEGER.fullmatch, texts))
    for unit, (first, last) in WINDOWS.items():
        inside = sum(first <= value <= last for value in values)
        if inside * 2 > len(values):
            found.append(Reading("epoch", unit, is_absolute=True, in_nanoseconds=fine or unit == "ns"))
    for length, format_ in ((8, "%Y%m%d"), (12, "%Y%m%d%H%M"), (14, "%Y%m%d%H%M%S"), (17, "%Y%m%d%H%M%S%g")):
        digits = [text.partition(".")[0] for text in texts]
        right = [text for text in digits if len(text) == length and "1900" <= text[:4] <= "2100"]
        if len(right) * 2 > len(texts) and all(
            _fits(text[:14], format_[:12] if length == 17 else format_) for text in right
        ):
            found.append(Reading("date", has_clock=False) if length == 8 else Reading("format", format_))
    return found


@cache
def _formats() -> tuple[str, ...]:
    days = [*_DAYS.split(), *_WORDY.split("|")]
    clocks = _CLOCKS.split("|")
    joined = [day + between + clock for day in days for between in _BETWEEN for clock in clocks]
    return (*days, *joined, *(text + offset for text in joined[::1] for offset in _OFFSETS))


def _formats_of(texts: Sequence[str]) -> list[str]:
    first = texts[0]
    several = texts[: min(20, len(texts))]
    shape = re.sub(r"\d+", "9", first)
    near = [f for f in _like(shape) if _may_fit(shape, f)]
    return [f for f in near if sum(_fits(text, f) for text in several) * 2 > len(several)]


def _like(shape: str) -> list[str]:
    """Those formats that have the shape's digits and signs: a small part, as a pattern for each would take seconds."""
    known = _formats_by_signs()
    with_offset = known.get((_signs(re.sub(r"(?:Z|[+-]9(?::9)?)$", "", shape)), True), [])
    return [*known.get((_signs(shape), False), []), *with_offset]


@cache
def _formats_by_signs() -> dict[tuple[str, bool], list[str]]:
    found: dict[tuple[str, bool], list[str]] = {}
    for format_ in _formats():
        with_names = re.sub("%[bBaAp]", "A", format_.removesuffix("%z"))
        shape = re.sub("9+", "9", re.sub("%[A-Za-z]", "9", with_names))
        found.setdefault((_signs(shape), format_.endswith("%z")), []).append(format_)
    return found


def _signs(shape: str) -> str:
    """The shape without words."""
    return re.sub("[A-Za-z.]+", "", shape)


@cache
def _shape_of(format_: str) -> re.Pattern[str]:
    parts = re.split(r"(%[A-Za-z])", format_)
    wordy = {"%b": "[A-Za-z.]+", "%B": "[A-Za-z]+", "%a": "[A-Za-z]+", "%A": "[A-Za-z]+", "%p": "[AaPp][Mm]"}
    wordy["%z"] = "(?:Z|[+-]9(?::9)?)"
    pattern = "".join(wordy.get(p, "9") if p.startswith("%") else re.escape(p) for p in parts)
    return re.compile(re.sub("9{2,}", "9", pattern))


def _may_fit(shape: str, format_: str) -> bool:
    return _shape_of(format_).fullmatch(shape) is not None


def _fits(text: str, format_: str) -> bool:
    if format_.endswith("%f") and (match := re.search(r"\.\d{7,}$", text)):
        text = text[: match.start() + 7]
    try:
        moment = datetime.strptime(text, format_)  # the zone is looked at elsewhere
    except ValueError:
        return False
    # A year of two digits in front is rare: only if it could be a year of today's data.
    return not (format_.startswith(_YEAR_FIRST) and not 1990 <= moment.year <= 2035)


def given(unit: str | None, format_: str | None) -> Reading | None:
    """Return the reading that the options say."""
    if format_ is not None:
        clock = any(code in format_ for code in ("%H", "%I", "%T", "%c", "%X", "%s"))
        return Reading("format", format_, "%z" in format_, clock)
    if unit == DATE:
        return Reading("date", has_clock=False)
    if unit is not None:
        return Reading("epoch", unit, is_absolute=True, in_nanoseconds=True, is_judged=False)
    return None


def of_type(type_: str, cells: Sequence[str | None]) -> list[Reading]:
    """Return the readings of a column of one of DuckDB's types."""
    if type_.startswith("TIMESTAMP"):
        zoned = "TIME ZONE" in type_ or type_ == "TIMESTAMPTZ"
        return [Reading("zoned" if zoned else "typed", is_absolute=zoned, in_nanoseconds="_NS" in type_)]
    if type_ == "DATE":
        return [Reading("typed", has_clock=False)]
    return candidates(cells)
