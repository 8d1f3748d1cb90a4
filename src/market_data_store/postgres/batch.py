"""A batch: the rows of several messages, merged to be written at once, and the outcome of each message's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from operator import itemgetter, lt
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from market_data_store.datasets import Dataset
from market_data_store.dead_letters import DeadLetter
from market_data_store.errors import Reason
from market_data_store.postgres.connection import first_line
from market_data_store.protocol import Counts, Replayed
from market_data_store.wire.columns import DecodedRows
from market_data_store.wire.fields import fields_of


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedMessage:
    """A message's decoded rows, with what counts and dead letters need of the message."""

    task_id: str
    decoded: DecodedRows
    #: When the message was first enqueued, in microseconds since 2000-01-01 UTC.
    enqueued_at: int
    #: Returns the row at a position as sent, as JSON text, for the dead letter of a row that Postgres refuses.
    row_text: Callable[[int], str]
    defaults: dict[str, Any] = field(default_factory=dict)
    #: The letters that the message replays.
    replays: Replayed | None = None

    def refuse(self, position: int, reason: Reason, row: str, sqlstate: str | None = None) -> DeadLetter:
        """Make the dead letter of a row of this message."""
        id_ = self.letter(position)
        return DeadLetter(
            task_id=self.task_id if self.replays is None or id_ is None else self.replays.task_id,
            position=position,
            dataset=self.decoded.dataset.name,
            reason=reason.text,
            pattern=reason.pattern,
            sqlstate=sqlstate,
            row=row,
            defaults=self.defaults,
            enqueued_at=self.enqueued_at,
            id=id_,
        )

    def letter(self, position: int) -> int | None:
        """Return the id of the letter that this row was replayed from, if any."""
        return None if self.replays is None or self.replays.whole else self.replays.ids[position]


class Batch:
    """The messages' rows, merged: of equal keys only the newest row, in key order."""

    def __init__(self, dataset: Dataset, messages: Sequence[DecodedMessage], counts: list[Counts]) -> None:
        self.dataset = dataset
        self._messages = messages
        self._counts = counts
        self._replays = any(message.replays for message in messages)
        # Oldest first, so that the last of equal keys is the newest.
        order = sorted(range(len(messages)), key=lambda i: messages[i].enqueued_at)
        parts = [messages[i].decoded for i in order]
        columns = [list(chain.from_iterable(part.columns[c] for part in parts)) for c in range(len(dataset.columns))]
        for place, f in enumerate(fields_of(dataset)):
            if f.kind.copy_type == "jsonb":
                columns[place] = [value and Jsonb(value, dumps=bytes) for value in columns[place]]
        sizes = [len(part.positions) for part in parts]
        message = list(chain.from_iterable(map(repeat, order, sizes)))
        enqueued_at = chain.from_iterable(map(repeat, (messages[i].enqueued_at for i in order), sizes))
        #: Tuples of the values of the dataset's columns, and enqueued_at.
        self.rows: list[tuple[Any, ...]] = list(zip(*columns, enqueued_at, strict=True))
        #: For each row, the index of its message and its position there.
        self._origins = list(zip(message, chain.from_iterable(part.positions for part in parts), strict=True))
        #: For rows that replaced others with the same key: the replaced rows and their origins, oldest first.
        self._superseded: dict[int, list[tuple[tuple[Any, ...], tuple[int, int]]]] = {}
        self._key_places = [n for n, column in enumerate(dataset.columns) if column.primary_key]
        keys = list(zip(*(columns[place] for place in self._key_places), strict=True))
        if not all(map(lt, keys, islice(keys, 1, None))):
            self._sort(keys)

    def _sort(self, keys: list[tuple[Any, ...]]) -> None:
        order = sorted(range(len(keys)), key=keys.__getitem__)
        rows, origins = self.rows, self._origins
        self.rows, self._origins = [], []
        for place, row in enumerate(order):
            if place and keys[row] == keys[order[place - 1]]:
                self._superseded.setdefault(len(self.rows) - 1, []).append((self.rows[-1], self._origins[-1]))
                self.rows[-1], self._origins[-1] = rows[row], origins[row]
            else:
                self.rows.append(rows[row])
                self._origins.append(origins[row])

    def numbered(self, row: int) -> tuple[Any, ...]:
        """Return the row's values followed by its number."""
        return (*self.rows[row], row)

    def key(self, row: int) -> tuple[Any, ...]:
        """Return the values of the row's key columns."""
        return tuple(self.rows[row][place] for place in self._key_places)

    def refuse(self, row: int, error: psycopg.Error) -> DeadLetter:
        """Count a row that Postgres refuses as rejected, and make its dead letter."""
        index, position = self._origins[row]
        message = self._messages[index]
        self._counts[index].rejected += 1
        # Postgres's message is not part of the pattern: it may be in any language, or come from a user's trigger.
        pattern = f"Postgres refuses the row (SQLSTATE {error.sqlstate})"
        reason = Reason(f"Postgres refuses the row: {first_line(error)}", pattern)
        return message.refuse(position, reason, message.row_text(position), error.sqlstate)

    def replayed(self, rows: Sequence[int]) -> list[tuple[int, str]]:
        """Return the letters (id, task id) of these rows and of the older rows that they replaced, where replayed."""
        letters = []
        for row in rows if self._replays else ():
            for index, position in (self._origins[row], *(origin for _, origin in self._superseded.get(row, ()))):
                replays, id_ = self._messages[index].replays, self._messages[index].letter(position)
                if replays is not None and id_ is not None:
                    letters.append((id_, replays.task_id))
        return letters

    def fall_back(self, row: int) -> bool:
        """Replace a refused row by the next older row of the same key; returns False if there is none."""
        older = self._superseded.get(row)
        if not older:
            return False
        self.rows[row], self._origins[row] = older.pop()
        return True

    def count(self, rows: Sequence[int], *, written: Collection[int], stale: Collection[int] = ()) -> None:
        """Add these rows to the counts; those that are neither written nor stale are unchanged."""
        sent, changed, late = map(self._by_message, (rows, written, stale))
        for index, number in sent.items():
            counts = self._counts[index]
            counts.written += changed[index]
            counts.stale += late[index]
            counts.unchanged += number - changed[index] - late[index]
        for row in rows if self._superseded else ():
            for older, (index, _) in self._superseded.get(row, ()):
                same = _values(older) == _values(self.rows[row])
                self._counts[index].unchanged += same
                self._counts[index].stale += not same

    def _by_message(self, rows: Collection[int]) -> Counter[int]:
        return Counter(map(itemgetter(0), map(self._origins.__getitem__, rows)))


def _values(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.obj if isinstance(value, Jsonb) else value for value in row[:-1])
