"""Rejects of a load: grouped by reason, with the first rows of each, and found in the file by their lines."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psycopg
import pyarrow as pa

from market_data_store import dead_letters
from market_data_store.files.tables import Source

#: Of each reason so many rows are shown.
MOST_EXAMPLES = 3
#: The most lines that show rejects.
MOST_LINES = 20
#: The most rejects that a run notes in its position.
MOST_NOTED = 2_000
#: A reject as a position has it: task, position in the message, index in the file.
Noted = tuple[str, int, int]
#: Letters whose lines are written at once.
_AT_ONCE = 2_000


@dataclass(slots=True)
class Group:
    """Rows that were rejected for one reason."""

    pattern: str
    rows: int = 0
    #: The number in the file of the first of them, and the reason with its values.
    examples: list[tuple[int, str]] = field(default_factory=list)


class Places:
    """Where in the file the rows are that were sent: by how many rows were sent before."""

    def __init__(self) -> None:
        self.sent = 0
        self._starts: list[int] = []
        self._rows: list[tuple[int, pa.Array | None]] = []

    def add(self, rows: pa.Array) -> None:
        """Note the indices in the file of rows that are sent next."""
        first, last = rows[0].as_py(), rows[-1].as_py()
        self._starts.append(self.sent)
        self._rows.append((first, None if last - first + 1 == len(rows) else rows))
        self.sent += len(rows)

    def row(self, sent: int) -> int:
        """Return the index in the file of the row that was sent after so many others."""
        at = bisect_right(self._starts, sent) - 1
        first, rows = self._rows[at]
        place = sent - self._starts[at]
        return first + place if rows is None else int(rows[place].as_py())


@dataclass(frozen=True, slots=True)
class _Reject:
    task: str
    position: int
    row: int
    reason: str
    pattern: str


class Rejects:
    """The rejects of one load, as their letters say."""

    def __init__(self, source: Source, places: Places) -> None:
        self._source, self._places = source, places
        self._found: list[_Reject] = []
        self._seen: set[str] = set()
        #: Of an interrupted run, which this one continues.
        self.earlier = 0

    def __len__(self) -> int:
        """How many rejects have been read."""
        return len(self._found)

    def read(self, connection: psycopg.Connection[object], rejecting: dict[str, int]) -> None:
        """Read the letters of tasks that are new among these; each with the number of rows sent before it."""
        due = [task for task in rejecting if task not in self._seen]
        self._seen.update(due)
        for task, position, reason, pattern in dead_letters.rejections(connection, due) if due else ():
            row = self._places.row(rejecting[task] + position)
            self._found.append(_Reject(task, position, row, reason, pattern or reason))

    def noted(self) -> list[Noted]:
        """Return the first of them, so that the next run can go on with them if this one is killed."""
        return [(reject.task, reject.position, reject.row) for reject in self._found[:MOST_NOTED]]

    def restore(self, connection: psycopg.Connection[object], noted: Sequence[Noted]) -> None:
        """Take in the rejects of an interrupted run whose letters are still there."""
        rows = {(task, position): row for task, position, row in noted}
        for task, position, reason, pattern in dead_letters.rejections(connection, sorted({t for t, _ in rows})):
            if (row := rows.get((task, position))) is not None:
                self._found.append(_Reject(task, position, row, reason, pattern or reason))
        self.earlier = len(self._found)

    def groups(self, connection: psycopg.Connection[object], job: int | None) -> list[Group]:
        """Return the groups, the largest first, and write file and line into the letters."""
        numbers = self._numbers()
        for part in self._parts():
            places = [(reject.task, reject.position, numbers.get(reject.row)) for reject in part]
            dead_letters.locate(connection, places, job=job, file=self._source.path.name)
        return self._grouped(numbers)

    def unlocated_groups(self) -> list[Group]:
        """Return the groups, and leave the letters as they are."""
        return self._grouped(self._numbers())

    def _numbers(self) -> dict[int, int]:
        return self._source.numbers(sorted({reject.row for reject in self._found})) if self._found else {}

    def _grouped(self, numbers: dict[int, int]) -> list[Group]:
        groups: dict[str, Group] = {}
        for reject in sorted(self._found, key=lambda reject: reject.row):
            group = groups.setdefault(reject.pattern, Group(reject.pattern))
            group.rows += 1
            if len(group.examples) < MOST_EXAMPLES:
                group.examples.append((numbers.get(reject.row, reject.row + 1), reject.reason))
        return sorted(groups.values(), key=lambda group: -group.rows)

    def _parts(self) -> Iterator[list[_Reject]]:
        for start in range(0, len(self._found), _AT_ONCE):
            yield self._found[start : start + _AT_ONCE]


def lines_of(groups: list[Group], unit: str) -> list[str]:
    """Return at most 20 lines that say what was rejected and why."""
    lines: list[str] = []
    for at, group in enumerate(groups):
        left = MOST_LINES - len(lines)
        others = groups[at:]
        if left <= 1 and len(others) > 1:
            lines.append(f"and {len(others)} other reasons, {sum(other.rows for other in others):,} rows")
            break
        number, reason = group.examples[0]
        if group.rows == 1:
            lines.append(f"{unit} {number:,}: {reason}")
            continue
        where = ", ".join(f"{n:,}" for n, _ in group.examples)
        more = ", ..." if group.rows > len(group.examples) else ""
        lines.append(f"{group.rows:,} rows ({unit}s {where}{more}): {reason}")
    return lines
