"""Time: how Arrow and Postgres count it, and the one reading of a time or a date that a row holds.

A number, or a text of digits, is a time in that unit since 1970 in which it lies between 1973 and 2100; in at most one
it does. YYYYMMDD is a calendar date. Any other number has no reading of its own: the message says its unit
(`TIME_UNIT` in its defaults), or the row is rejected.

`arrow_times` reads whole columns in the same way, except for what it leaves to this module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec

from market_data_store.config import settings
from market_data_store.errors import Reason
from market_data_store.wire.reasons import WrongValue, shown

#: Postgres's epoch: the moments of messages and dead letters count from it.
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
#: The epoch of Unix and Arrow: the times in rows count from it.
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNIX_EPOCH_DATE = date(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
UNIX_TO_EPOCH_US = 946_684_800_000_000
UNIX_TO_EPOCH_DAYS = 10_957
DAY_US = 86_400_000_000
#: The years 1 to 9999, in microseconds since 1970.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
#: The years 1900 to 2100: a time outside of them is a mistake, unless MDS_ANY_YEAR is set.
_FIRST_PLAUSIBLE_US, _LAST_PLAUSIBLE_US = -2_208_988_800_000_000, 4_133_980_799_999_999

#: The name in a message's defaults for the unit of numbers and digits: one of `UNITS`, or `DATE` for YYYYMMDD.
TIME_UNIT = "time_unit"
DATE = "date"
#: As the unit, it lets times be of any year, as MDS_ANY_YEAR does: whoever sends them knows that they are right.
ANY_YEAR = "any_year"
#: The units of numbers, in nanoseconds.
UNITS: Mapping[str, int] = MappingProxyType({"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1})
#: The first and the last number that is a time from 1973-01-01 to 2100-01-01 in a unit. The windows do not overlap.
WINDOWS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {unit: (94_694_400_000_000_000 // ns, 4_102_444_800_000_000_000 // ns) for unit, ns in UNITS.items()}
)
#: What YYYYMMDD is from 1900 to 2100: below the window of seconds.
_FIRST_DATE, _LAST_DATE = 19_000_101, 21_001_231

#: More digits than any time has in any unit.
_MAX_DIGITS = 30
#: YYYYMMDDHHMM from 1900 to 2100: as milliseconds, these numbers are times of 1976.
FIRST_MINUTE, LAST_MINUTE = 190_001_010_000, 210_012_312_359

_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]*))?")
#: ISO 8601. Python takes any character between date and time, even a digit, and a fraction of a minute for seconds.
_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?\d)?)"
    r"(?:(?P<clock>[Tt ](?:\d\d:\d\d:\d\d|\d{6}(?!\d)|\d\d(?::?\d\d)?(?![.,])))"
    r"(?:[.,](?P<fraction>\d+))?(?P<offset>[Zz]|[+-][\d:]+)?)?",
    re.ASCII,
)


def microseconds(moment: datetime) -> int:
    """Return microseconds since 2000-01-01 UTC; a naive moment is UTC."""
    return (aware(moment) - EPOCH) // MICROSECOND


def from_epoch_seconds(seconds: float) -> int:
    """Return microseconds since 2000-01-01 UTC for seconds since 1970."""
    return round((seconds - UNIX_TO_EPOCH_US / 1e6) * 1e6)


def aware(moment: datetime) -> datetime:
    """Return the moment with a time zone; a naive one is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def nanos_of(name: str) -> str:
    """Return the name under which nanoseconds beyond the microseconds of a field are kept that no column takes."""
    return f"{name}_nanos"


def bounds_us(unit: str | None = None) -> tuple[int, int]:
    """Return the first and the last time that a row may have, in microseconds since 1970."""
    return (
        (_FIRST_US, _LAST_US) if unit == ANY_YEAR or settings().any_year else (_FIRST_PLAUSIBLE_US, _LAST_PLAUSIBLE_US)
    )


def unit_named(value: Any) -> str:
    """Return the `TIME_UNIT` of a message's defaults; raises `WrongValue`."""
    if isinstance(value, str) and (value in UNITS or value in (DATE, ANY_YEAR)):
        return value
    raise WrongValue(Reason.of("{} is not one of {known}", shown(value), known=", ".join((*UNITS, DATE))).at(TIME_UNIT))


def sendable(value: Any) -> Any:
    """Return Python's own times and Decimals as the texts or numbers that a row may hold."""
    if isinstance(value, date):  # datetimes too
        return value.isoformat()
    return f"{value:f}" if isinstance(value, Decimal) else value


def beyond_of(values: Sequence[Any], unit: str | None) -> list[int]:
    """Return the nanoseconds of times beyond their microseconds, 0 to 999; raises what `nanoseconds` does."""
    return [nanoseconds(value, unit) % 1_000 for value in values]


def days_of(values: Sequence[Any], unit: str | None) -> list[int]:
    """Return dates in days since 1970; raises what `days` does."""
    found = {value: days(value, unit) for value in set(values)}  # dates mostly repeat
    return [found[value] for value in values]


def microseconds_of(values: Sequence[Any], unit: str | None) -> list[int]:
    """Return times in microseconds since 1970; raises what `nanoseconds` does."""
    first, last = bounds_us(unit)
    found = _alike(values, known_unit(unit))
    if found is None or (found and (min(found) < first or max(found) > last)):
        found = [nanoseconds(value, unit) // 1_000 for value in values]
    return found


def known_unit(unit: str | None) -> str | None:
    """Return the unit of numbers that a `TIME_UNIT` says, if it says one."""
    return None if unit == ANY_YEAR else unit


def _alike(values: Sequence[Any], unit: str | None) -> list[int] | None:
    """Read values that are all integers of one unit, or all texts as RFC 3339 has them, at a tenth of the cost."""
    types = set(map(type, values))
    if types == {int}:
        least, most = min(values), max(values)
        unit = unit or next((u for u, (first, last) in WINDOWS.items() if first <= least and most <= last), None)
        if unit is None or unit == DATE or (least <= LAST_MINUTE and most >= FIRST_MINUTE):
            return None
        return [value * UNITS[unit] // 1_000 for value in values]
    # msgspec rounds to microseconds, so the 27th character must not be the seventh digit of a fraction.
    if types != {str} or any(value[26:27].isdigit() for value in values):
        return None
    try:
        moments = msgspec.convert(values, list[datetime])
    except ValueError:
        return None
    return [(aware(moment) - UNIX_EPOCH) // MICROSECOND for moment in moments]


def nanoseconds(value: Any, unit: str | None) -> int:
    """Return one time in nanoseconds since 1970.

    Raises ValueError for what is not a time, and `WrongValue` for a time with no certain reading or an implausible one.
    """
    known = known_unit(unit)
    if isinstance(value, str):
        number = _NUMBER.fullmatch(value)
        found = _of_iso(value) if number is None else _of_digits(number, known)
    elif isinstance(value, float):
        found = _of_float(value, known)
    else:
        found = _of_integer(value, value, known)
    _check_range(found // 1_000, value, unit)
    return found


def days(value: Any, unit: str | None) -> int:
    """Return one date in days since 1970; raises what `nanoseconds` does.

    A time is its day, as it is written or in UTC. YYYYMMDD is a date whatever the unit of times is.
    """
    if not isinstance(value, str):
        number = int(value) if isinstance(value, float) and value.is_integer() else value
    else:
        number = int(value) if value.isascii() and value.isdigit() and len(value) == 8 else None
    if isinstance(number, int) and _FIRST_DATE <= number <= _LAST_DATE:
        found = _calendar(number, value)
    elif isinstance(value, str) and _NUMBER.fullmatch(value) is None:
        found = (_moment(value)[0].date() - UNIX_EPOCH_DATE).days
    else:
        found = nanoseconds(value, unit) // 1_000 // DAY_US
    _check_range(found * DAY_US, value, unit)
    return found


def _of_iso(text: str) -> int:
    moment, nanos = _moment(text)
    return (aware(moment) - UNIX_EPOCH) // MICROSECOND * 1_000 + nanos


def _moment(text: str) -> tuple[datetime, int]:
    """Read ISO 8601; returns the time to the microsecond, and the nanoseconds beyond."""
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError("not ISO 8601")
    day, clock, fraction, offset = match.groups(default="")
    nanos = _digits(fraction[6:], 3, text)
    # msgspec would round a longer fraction.
    return _parsed(f"{day}{clock}.{fraction[:6]}{offset}" if len(fraction) > 6 else text), nanos


def _parsed(text: str) -> datetime:
    try:
        return msgspec.convert(text, datetime)
    except ValueError:  # Python reads more of ISO 8601: a date without a time, a time without seconds
        return datetime.fromisoformat(text)


def _of_digits(match: re.Match[str], unit: str | None) -> int:
    text, (sign, whole, fraction) = match.string, match.groups()
    if len(whole) > _MAX_DIGITS:
        raise _no_unit(text)
    number = int(sign + whole)
    if fraction is None or not fraction.strip("0"):
        return _of_integer(number, text, unit)
    unit = unit or _unit_of(number)
    if unit is None or unit == DATE:
        raise _no_unit(text, unit)
    part = _digits(fraction, len(str(UNITS[unit])) - 1, text)
    return number * UNITS[unit] + (-part if sign else part)


def _digits(fraction: str, places: int, text: str) -> int:
    """Return the digits behind a point as a number of so many places; raises `WrongValue` if there are more."""
    if fraction[places:].strip("0"):
        raise WrongValue(Reason.of("{} is finer than a nanosecond", shown(text)))
    return int(fraction[:places].ljust(places, "0") or 0)


def _of_float(value: float, unit: str | None) -> int:
    """Read a float; if it is not whole, to the nearest microsecond, as today's seconds have no finer floats."""
    if not math.isfinite(value):
        raise ValueError("not finite")
    whole = math.floor(value)
    if whole == value:
        return _of_integer(whole, value, unit)
    unit = unit or _unit_of(whole)
    if unit is None or unit == DATE:
        raise _no_unit(value, unit)
    finest = min(UNITS[unit], 1_000)
    return whole * UNITS[unit] + math.floor((value - whole) * (UNITS[unit] // finest) + 0.5) * finest


def _of_integer(number: int, value: Any, unit: str | None) -> int:
    if unit != DATE:
        found = unit or _unit_of(number)
        if found is not None:
            return number * UNITS[found]
    if unit == DATE or _FIRST_DATE <= number <= _LAST_DATE:
        return _calendar(number, value) * DAY_US * 1_000
    raise _no_unit(value)


def _unit_of(number: int) -> str | None:
    if FIRST_MINUTE <= number <= LAST_MINUTE and number % 10_000 // 100 < 24 and number % 100 < 60:
        try:
            _calendar(number // 10_000, number)
        except WrongValue:
            return "ms"
        return None
    return next((unit for unit, (first, last) in WINDOWS.items() if first <= number <= last), None)


def _calendar(number: int, value: Any) -> int:
    """Return days since 1970 of YYYYMMDD."""
    try:
        return (date(number // 10_000, number // 100 % 100, number % 100) - UNIX_EPOCH_DATE).days
    except (ValueError, OverflowError) as error:
        raise _no_unit(value, DATE) from error


def _no_unit(value: Any, unit: str | None = None) -> WrongValue:
    if unit == DATE:
        return WrongValue(Reason.of("{} is not a calendar date as YYYYMMDD", shown(value)))
    template = "{} does not show its unit, as times from 1973 to 2100 do; set {name} in defaults to {known}"
    known = f"{', '.join(UNITS)} or {DATE}"
    return WrongValue(Reason.of(template, shown(value), name=TIME_UNIT, known=known))


def _check_range(us: int, value: Any, unit: str | None) -> None:
    if not _FIRST_US <= us <= _LAST_US:
        raise WrongValue(Reason.of("{} is not a time from year 1 to 9999", shown(value)))
    first, last = bounds_us(unit)
    if us < first:
        raise WrongValue(Reason.of("{} is before 1900; set MDS_ANY_YEAR=true if that is right", shown(value)))
    if us > last:
        raise WrongValue(Reason.of("{} is after 2100; set MDS_ANY_YEAR=true if that is right", shown(value)))
