"""Detects the layout of a delimited file from its first part: delimiter, preamble, header, and the names of columns.

A header is the last line of names before the first line of values. What the first part cannot show is asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from market_data_store.files.cells import is_missing, is_time, is_value
from market_data_store.files.opening import Opened
from market_data_store.files.options import Options, Undecided
from market_data_store.files.records import Record, records

#: In this order where several divide all lines equally well: a comma also stands in numbers, a blank in times.
_DELIMITERS = ("\t", ";", "|", ",")
_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";", "pipe": "|"}
_SAMPLE_ROWS = 1_000
#: A preamble has at most this many lines.
_MOST_PREAMBLE = 60


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the lines of a file are divided."""

    delimiter: str
    #: Lines before the first row, the header among them.
    skipped_lines: int
    #: The name of each column; empty for one without.
    names: tuple[str, ...]
    has_header: bool
    #: The first rows.
    sample: tuple[tuple[str, ...], ...]
    #: Of a header of three lines, as yfinance writes it: the ticker of each column.
    tickers: tuple[str, ...] = ()


def detect(opened: Opened, options: Options) -> Dialect:
    """Return the layout; raises `Undecided` where an option must say it."""
    text = opened.sample
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
    lines = [line for line in lines if line]
    if not opened.is_whole and len(lines) > 1:
        lines.pop()  # it may be cut
    if lines:
        lines[0] = lines[0].removeprefix("\ufeff")
    skipped = options.skip or 0
    lines = lines[skipped:]
    is_own = options.delimiter is None and _is_own(lines, options)
    delimiter = "," if is_own else _delimiter(lines, options.delimiter)
    found = [record for record, _ in zip(records(lines, delimiter), range(_SAMPLE_ROWS), strict=False)]
    if not found:
        raise Undecided(f"{opened.path}: no row{' behind --skip ' + str(skipped) if skipped else ''}; nothing was sent")
    width = _width(found)
    if options.names:
        return _of_names(opened, options, found, delimiter, skipped, width)
    tickers = _stacked(found)
    if tickers is not None:
        return Dialect(
            delimiter, skipped + found[2].line, _named(found[0], found[2]), True, _rows(found[3:], width), tickers
        )
    first = next((at for at, record in enumerate(found[:_MOST_PREAMBLE]) if _has_values(record, width)), None)
    header = 0 if is_own else None
    for at in () if is_own else range((len(found) if first is None else first) - 1, -1, -1):
        if _is_header(found[at], width):
            header = at
            break
    if header is None:
        start = first or 0
        before = found[start].line - 1
        return Dialect(delimiter, skipped + before, ("",) * width, False, _rows(found[start:], width))
    names = _without_trailing(found[header].cells)
    rows = found[header + 1 :]
    inner = _width(rows) if rows else len(names)
    spare = all(not cell.strip() for record in rows for cell in record.cells[len(names) :])
    if rows and inner != len(names) and not (inner > len(names) and spare) and inner < len(found[header].cells):
        raise Undecided(_uneven(opened, names, inner, found[header]))
    if rows and inner > len(names) and not spare:
        raise Undecided(_uneven(opened, names, inner, found[header]))
    names += [""] * (inner - len(names))
    last = found[header].line if not rows else max(found[header].line, rows[0].line - 1)
    return Dialect(delimiter, skipped + last, tuple(names), True, _rows(rows, len(names)))


def _is_own(lines: list[str], options: Options) -> bool:
    """Whether the first line has names of the dataset's columns and no others: it is a header, whatever follows."""
    names = lines[0].strip().split(",") if lines else []
    own = {str(column.name) for column in options.dataset.columns}
    return len(names) > 2 and own.issuperset(names) and not options.names


def _uneven(opened: Opened, names: list[str], width: int, header: Record) -> str:
    line = header.line
    return (
        f"{opened.path}: the header has {len(names)} names and the rows {width} cells; name all of them with "
        f"--skip {line} --columns {','.join(name or 'x' for name in names)},..."
    )


def _of_names(
    opened: Opened, options: Options, found: list[Record], delimiter: str, skipped: int, width: int
) -> Dialect:
    if len(options.names) != width:
        raise Undecided(
            f"{opened.path}: --columns has {len(options.names)} names, and the rows have {width} cells; name all"
        )
    return Dialect(delimiter, skipped + found[0].line - 1, options.names, False, _rows(found, width))


def _delimiter(lines: list[str], given: str | None) -> str:
    if given is not None:
        delimiter = _DELIMITER_NAMES.get(given.lower(), given)
        if len(delimiter) != 1:
            raise Undecided(f"--delimiter {given}: give one character, or tab, space, comma, semicolon or pipe")
        return delimiter
    best, best_share, best_width = ",", 0.0, 1
    for delimiter in (*_DELIMITERS, " "):
        rows = [record for record, _ in zip(records(lines[:400], delimiter), range(300), strict=False)]
        counts = Counter(len(record.cells) for record in rows if not record.problem)
        if not counts:
            continue
        width, number = max(counts.items(), key=lambda item: (item[1] * (item[0] > 1), item[0]))
        share = number / len(rows)
        if delimiter == " " and best_width > 1:
            continue
        if width > 1 and (best_width == 1 or share > best_share + 0.05):
            best, best_share, best_width = delimiter, share, width
    return best


def _width(found: list[Record]) -> int:
    """The number of cells that most rows have."""
    counts = Counter(len(record.cells) for record in found if not record.problem)
    if not counts:
        return 1
    return max(counts.items(), key=lambda item: (item[1], item[0]))[0]


def _has_values(record: Record, width: int) -> bool:
    """Whether a line is one of values: it has the width of rows, and numbers or times in it."""
    if record.problem or abs(len(record.cells) - width) > 1:
        return False
    given = [cell for cell in record.cells if not is_missing(cell)]
    values = sum(map(is_value, given))
    return bool(values) and values * 4 >= len(given)


def _is_header(record: Record, width: int) -> bool:
    given = [cell for cell in record.cells if cell.strip()]
    if record.problem or not given or any(map(is_value, given)) or len(record.cells) * 2 < width:
        return False
    return len(given) > 1 or width == 1


def _without_trailing(cells: list[str]) -> list[str]:
    names = [cell.strip().removeprefix("\ufeff") for cell in cells]
    while len(names) > 1 and not names[-1]:
        names.pop()
    return names


def _rows(found: list[Record], width: int) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(r.cells[:width]) for r in found if not r.problem and len(r.cells) >= width)


def _stacked(found: list[Record]) -> tuple[str, ...] | None:
    """Return the tickers of a header of three lines (Price, Ticker, Date), as pandas writes two levels of columns."""
    if len(found) < 4:
        return None
    first, second, third = (record.cells for record in found[:3])
    is_index = third[0].strip().lower() in ("date", "datetime") and not any(cell.strip() for cell in third[1:])
    if not is_index or len(first) != len(second) or any(map(is_value, first[1:])) or not is_time(found[3].cells[0]):
        return None
    levels = (first[0].strip().lower(), second[0].strip().lower())
    if levels == ("ticker", "price"):
        first, second = second, first
    return tuple(cell.strip() for cell in second)


def _named(levels: Record, index: Record) -> tuple[str, ...]:
    return (index.cells[0].strip(), *(cell.strip() for cell in levels.cells[1:]))
