"""How far a load has come, so that the next run of an interrupted one goes on there.

A load is known by its options and the files that it was given, each file by its content. Its run in `job_runs` has in
`metadata` under `position` which files are done, and in the one under way the rows of which the results have arrived.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from psycopg.types.json import Jsonb

from market_data_store.files.options import Options
from market_data_store.files.rejects import Noted
from market_data_store.files.rows import Made

#: An older interruption does not count: what was stored then may have been deleted since.
_MOST_DAYS = 7
_LAST = """
    SELECT id, updated_at, metadata->'position' FROM job_runs
    WHERE config_fingerprint = %s AND updated_at > now() - make_interval(days => %s)
    ORDER BY id DESC LIMIT 1
"""
_ANY_ROW = "SELECT EXISTS (SELECT FROM {})"
_NOTE = "UPDATE job_runs SET metadata = metadata || %s, updated_at = now() WHERE id = %s"
_FORGET = "UPDATE job_runs SET metadata = metadata - 'position', updated_at = now() WHERE id = %s"


class Position(msgspec.Struct, frozen=True):
    """How far a load has come."""

    #: Files that are done, from the first, and a hash of their contents.
    done: int = 0
    digest: str = ""
    #: The content of the file under way, and by stream the index of the first row that is not safe.
    file: str = ""
    rows: dict[str, int] = {}
    #: Rejects of that file whose letters do not know their line yet.
    rejects: list[Noted] = []

    @property
    def is_at_start(self) -> bool:
        """Whether nothing is safe yet."""
        return not self.done and not self.rows

    def noted(self) -> dict[str, Any]:
        """Return the position as JSON has it."""
        noted: dict[str, Any] = msgspec.to_builtins(self)
        return noted

    def within(self, content: str) -> Position:
        """Return the start of the file with this content, which follows those that are done."""
        return msgspec.structs.replace(self, file=content, rows={}, rejects=[])

    def after(self, content: str) -> Position:
        """Return the position behind another file."""
        return Position(self.done + 1, blake2b(f"{self.digest} {content}".encode(), digest_size=16).hexdigest())


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An earlier run of the same load that did not come to its end."""

    run: int
    at: datetime
    position: Position


def load_fingerprint(options: Options, given: Sequence[str]) -> str:
    """Return what two runs of one load have in common: the options, and the paths as they were given."""
    said = {each.name: str(getattr(options, each.name)) for each in fields(options) if each.name != "dataset"}
    paths = [name if name == "-" else str(Path(name).resolve()) for name in given]
    text = json.dumps([options.dataset.name, said, paths])
    return f"mds load {blake2b(text.encode(), digest_size=16).hexdigest()}"


def content_of(path: Path) -> str:
    """Return a hash of a file's content."""
    found = blake2b(digest_size=16)
    with path.open("rb") as raw:
        while part := raw.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def interrupted(connection: psycopg.Connection[Any], fingerprint: str, table: str) -> Interrupted | None:
    """Return the last run of a load, if it was interrupted within a week and the table still has rows."""
    found = connection.execute(_LAST, [fingerprint, _MOST_DAYS]).fetchone()
    if found is None or not found[2]:
        return None
    position = msgspec.convert(found[2], Position)
    ((has_rows,),) = connection.execute(sql.SQL(_ANY_ROW).format(sql.Identifier(table))).fetchall()
    return Interrupted(found[0], found[1], position) if has_rows and not position.is_at_start else None


def note(connection: psycopg.Connection[Any], run: int, position: Position | None) -> None:
    """Record the position of a run; None when it has come to its end."""
    if position is None:
        connection.execute(_FORGET, [run])
    else:
        connection.execute(_NOTE, [Jsonb({"position": position.noted()}), run])


def continued(position: Position, contents: Sequence[str]) -> Position:
    """Return where a load of files with these contents goes on: at the start if those that were done have changed."""
    at = Position()
    for content in contents[: position.done]:
        at = at.after(content)
    if at.done != position.done or at.digest != position.digest:
        return Position()
    is_same = position.done < len(contents) and contents[position.done] == position.file
    return position if is_same else at


def stream_of(made: Made) -> str:
    """Return which of the sequences of rows these belong to: within one, the indices rise over the whole file."""
    if made.table is None:
        return f"{made.variant} bad"
    kind = str(made.table.schema.field("seq").type) if "seq" in made.table.column_names else ""
    return f"{made.variant} {kind}"


@dataclass(slots=True)
class Marks:
    """Up to where the rows of one file are safe, by stream."""

    rows: dict[str, int] = field(default_factory=dict)
    _sent: int = 0
    #: What was sent and is not known to be safe: the rows sent before it, its stream and its indices.
    _open: deque[tuple[int, str, pa.Array]] = field(default_factory=deque)

    def rest(self, made: Made) -> Made | None:
        """Return those of the rows that are not safe."""
        mark = self.rows.get(stream_of(made), 0)
        if mark <= made.rows[0].as_py():
            return made
        safe = int(pc.sum(pc.less(made.rows, mark)).as_py())
        if safe == len(made.rows):
            return None
        table = None if made.table is None else made.table.slice(safe)
        return replace(made, rows=made.rows.slice(safe), table=table, bad=made.bad[safe:])

    def add(self, made: Made) -> None:
        """Note rows that are sent next."""
        self._open.append((self._sent, stream_of(made), made.rows))
        self._sent += len(made.rows)

    def settle(self, safe: int) -> bool:
        """Take in how many of the rows that were sent first are safe; returns whether these are more than before."""
        changed = False
        while self._open and self._open[0][0] < safe:
            before, stream, rows = self._open[0]
            count = min(safe - before, len(rows))
            mark = rows[count - 1].as_py() + 1
            changed |= self.rows.get(stream, 0) < mark
            self.rows[stream] = max(self.rows.get(stream, 0), mark)
            if count < len(rows):
                break
            self._open.popleft()
        return changed
