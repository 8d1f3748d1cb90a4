"""Splits the lines of a delimited file into records, line by line, whatever is wrong with some of them.

DuckDB reads a file that has no mistakes. This reader is for the others, and for the numbers of lines: a line of the
wrong length, or one with a quotation mark that is never closed, costs that line and no other.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

#: A quoted cell may span at most this many lines, unless the record has the right length.
_MOST_LINES = 200


@dataclass(frozen=True, slots=True)
class Record:
    """The cells of a record, and where it begins. `problem` says why it is not a row."""

    line: int
    cells: list[str]
    problem: str = ""


def records(lines: Iterable[str], delimiter: str, *, width: int | None = None, first: int = 1) -> Iterator[Record]:
    """Yield the records of lines, of which `first` is the number of the first; empty lines hold none.

    With a `width`, a record of another number of cells is a problem, unless those beyond are empty.
    """
    waiting: deque[str] = deque()
    source = iter(lines)
    number = first - 1
    for line in chain(iter(lambda: waiting.popleft() if waiting else next(source, None), None)):
        number += 1
        start, problem = number, ""
        if '"' not in line:
            body = line.rstrip("\r\n")
            if not body.strip():
                continue
            cells = body.split(delimiter)
        else:
            held = [line]
            while not _is_closed("".join(held), delimiter) and len(held) < _MOST_LINES:
                more = waiting.popleft() if waiting else next(source, None)
                if more is None:
                    break
                held.append(more)
            whole = _is_closed("".join(held), delimiter)
            cells = _cells("".join(held), delimiter) if whole else []
            if len(held) > 1 and (not whole or (width is not None and len(cells) != width)):
                waiting.extendleft(reversed(held[1:]))
                held, whole, cells = held[:1], False, []
            if not whole:
                cells, problem = [line.rstrip("\r\n")], "a quotation mark is never closed"
            number += len(held) - 1
        if width is not None and not problem and len(cells) != width:
            if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
                cells = cells[:width]
            else:
                problem = f"{len(cells)} cell{'s' * (len(cells) != 1)} where {width} are expected"
        yield Record(start, cells, problem)


def _is_closed(text: str, delimiter: str) -> bool:
    """Return whether every quoted cell ends. A mark inside a cell that is not quoted is an ordinary character."""
    if text.count('"') % 2 == 0:
        return True
    quoted, at, beginning = False, 0, True
    length = len(text)
    while at < length:
        char = text[at]
        if quoted:
            if char == '"':
                if text[at + 1 : at + 2] == '"':
                    at += 1
                else:
                    quoted = False
        elif char == '"' and beginning:
            quoted = True
        elif char in (delimiter, "\n", "\r"):
            beginning = True
            at += 1
            continue
        elif char != " ":
            beginning = False
        at += 1
    return not quoted


def _cells(text: str, delimiter: str) -> list[str]:
    cells = next(csv.reader([text.rstrip("\r\n")], delimiter=delimiter))
    if any(cell.startswith(' "') for cell in cells):  # a quoted cell behind a blank
        cells = next(csv.reader([text.rstrip("\r\n")], delimiter=delimiter, skipinitialspace=True))
    return cells
