"""A batch: the rows of several messages, merged to be written at once, and the outcome of each message's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.datasets import ENQUEUED_AT
from market_data_store.dead_letters import stored_id
from market_data_store.errors import LettersUnavailable, Reason
from market_data_store.postgres.casts import Cast
from market_data_store.postgres.failures import Cause
from market_data_store.postgres.key_order import differ, in_key_order
from market_data_store.postgres.messages import DecodedMessage
from market_data_store.postgres.refusals import Chosen, Refusal, Refusals
from market_data_store.protocol import Counts, Rejection
from market_data_store.wire.columns import MESSAGE, POSITION, DecodedRows
from market_data_store.wire.fields import names_of
from market_data_store.wire.occurrences import hashed_field, id_of
from market_data_store.wire.reasons import unfit_problem
from market_data_store.wire.rows import SentRows, rows_at
from market_data_store.wire.text import row_text, with_number

#: What the reason of such a letter begins with.
REFUSED = "Postgres refuses the row"
_NO_ROWS: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch; `counts` and `rejections` are by message, in the order of the batch's messages."""

    counts: list[Counts]
    #: Ordered by position; of a message that is kept as a whole only the first.
    rejections: list[list[Rejection]]
    #: For each stale row, by how many seconds its message is older than that of the row that stays.
    late: list[float]
    #: Those of `late` that are older than a row that was stored before, and not just than another of the batch.
    behind: list[float]
    #: The messages, by their places, of which a letter could not be kept: all their other rows are committed.
    waiting: Mapping[int, LettersUnavailable] = field(default_factory=dict)


class Batch:
    """The messages' rows, merged: of equal keys only the newest row, in key order.

    Without `keeps_letters` no letter is tried to be kept.
    """

    def __init__(self, decoded: DecodedRows, messages: Sequence[DecodedMessage], *, keeps_letters: bool = True) -> None:
        self.dataset = decoded.dataset
        self.keeps_letters = keeps_letters
        self._messages = messages
        self._decoded = decoded
        #: The rows that decoding rejected.
        self.refusals = [
            Refusal(index, message.refuse(reject.position, Reason(reject.reason, reject.pattern), reject.row))
            for index, (message, rejects) in enumerate(zip(messages, decoded.rejects, strict=True))
            for reject in rejects
        ]
        self.letters = Refusals(messages, decoded.rejected)
        self.begin_again()
        self._replays = any(message.replays for message in messages)
        #: All rows in key order; the last of equal keys is the newest.
        self._sorted = in_key_order(decoded, [message.rows for message in messages])
        #: The rows to write, and the place of each in `_sorted`.
        self._rows = self._sorted
        self._places: Sequence[int] = range(len(self._sorted))
        #: For rows that replaced others with the same key: the places of the replaced rows, oldest first.
        self._superseded: dict[int, list[int]] = {}
        self._keep_newest()

    def begin_again(self) -> None:
        """Forget what became of rows: they are written once more."""
        #: The outcome of each message so far.
        self.counts = [Counts(rejected=number) for number in self._decoded.rejected]
        self.letters.begin_again()
        self._waiting: dict[int, LettersUnavailable] = {}
        self._late, self._behind = list[float](), list[float]()

    def __len__(self) -> int:
        """Return the number of rows to write."""
        return len(self._places)

    def _keep_newest(self) -> None:
        if len(self._sorted) < 2:
            return
        # Each row of a key but the newest is followed by one with the same key.
        equal = pc.invert(differ(self._sorted.slice(0, len(self) - 1), self._sorted.slice(1), self.dataset.key))
        if not pc.any(equal).as_py():
            return
        places: list[int] = []
        older: list[int] = []
        for place, is_older in enumerate([*equal.to_pylist(), False]):
            if is_older:
                older.append(place)
                continue
            if older:
                self._superseded[len(places)], older = older, []
            places.append(place)
        self._places = places
        self._rows = self._sorted.take(pa.array(places))

    def columns(self, rows: Sequence[int]) -> pa.RecordBatch:
        """Return the columns of these rows, as `DecodedRows.rows` has them."""
        if isinstance(rows, range):
            return self._rows.slice(rows.start, len(rows))
        return self._rows.take(pa.array(rows, pa.int32()))

    def refuse(self, causes: Mapping[int, Cause]) -> dict[int, Refusal]:
        """Make the dead letters of rows that Postgres refuses; returns them by row."""
        # Postgres's message is not part of the pattern: it may be in any language, or come from a user's trigger.
        return self._refusals(
            {
                row: (Reason(f"{REFUSED}: {cause.reason}", f"{REFUSED} (SQLSTATE {cause.sqlstate})"), cause.sqlstate)
                for row, cause in causes.items()
            }
        )

    def refuse_unfit(self, rows: Mapping[int, tuple[str, Cast]]) -> dict[int, Refusal]:
        """Make the dead letters of rows that do not fit a column, each given with one; returns them by row."""
        together, table = self.columns(list(rows)), self.dataset.table.name
        reasons = {}
        for place, (row, (column, cast)) in enumerate(rows.items()):
            value = together.column(column)[place].as_py()
            reasons[row] = unfit_problem(value, table, cast.stored.name).at(column), cast.sqlstate
        return self._refusals(reasons)

    def leave_out(self, reasons: Mapping[int, Reason], sqlstate: str) -> None:
        """Make dead letters of rows, and of the older rows that they replaced, before anything is written."""
        rows = set(reasons)
        while rows:
            self.refusals += self._refusals({row: (reasons[row], sqlstate) for row in rows}).values()
            rows = self.fall_back(rows)
        kept = [row for row in range(len(self)) if row not in reasons]
        self._superseded = {place: older for place, row in enumerate(kept) if (older := self._superseded.get(row))}
        self._places = [self._places[row] for row in kept]
        self._rows = self._sorted.take(pa.array(self._places, pa.int64()))

    def _refusals(self, reasons: Mapping[int, tuple[Reason, str]]) -> dict[int, Refusal]:
        """Make the dead letters of rows, by row, for these reasons with their SQLSTATEs."""
        origins = {row: self._origin(self._places[row]) for row in reasons}
        sent = rows_at(origins.values(), [message.rows for message in self._messages])
        refusals = {}
        for row, (reason, sqlstate) in reasons.items():
            index, position = origins[row]
            message = self._messages[index]
            text = self._with_id(row, message.rows, sent[index, position])
            refusals[row] = Refusal(index, message.refuse(position, reason, text, sqlstate))
        return refusals

    def rows_of(self, origins: Collection[tuple[str, int]], rows: Sequence[int]) -> set[int]:
        """Return those of these rows that have these origins (stored task id, position), without those of a replay."""
        ids = [None if message.replays else stored_id(message.task_id) for message in self._messages]
        columns = self.columns(rows)
        of = zip(rows, *(columns.column(name).to_pylist() for name in (MESSAGE, POSITION)), strict=True)
        return {row for row, index, position in of if (ids[index], position) in origins}

    def _with_id(self, row: int, message: SentRows, sent: Any) -> str:
        """Return a row as sent, with its id if only its equals in the message have made it: they are not replayed."""
        text = row_text(sent)
        if not names_of(self.dataset).numbered:
            return text
        place, made = hashed_field(self.dataset)
        id_ = self.columns([row]).column(place)[0].as_py()
        return text if id_of(self.dataset, sent, message.standard) == id_ else with_number(text, made.name, id_)

    def kept(self, refusals: Sequence[Refusal], chosen: Chosen, ids: Sequence[int | None]) -> None:
        """Note the letters that were chosen for refused rows, which are committed under these ids."""
        for index, letter in refusals:
            self.counts[index].rejected += letter.sqlstate is not None  # the others were counted when they were decoded
        self.letters.kept(refusals, chosen, ids)

    def wait_for_letters(self, refusals: Sequence[Refusal], trouble: LettersUnavailable) -> None:
        """Note that the letters of these rows cannot be kept; they are counted when they are."""
        for index, _ in refusals:
            self._waiting[index] = trouble
            self.counts[index].rejected = 0

    def replayed(self, rows: Sequence[int]) -> list[tuple[int, str]]:
        """Return the letters (id, task id) of these rows and of the older rows that they replaced, where replayed."""
        letters = []
        for row in rows if self._replays else ():
            for place in (self._places[row], *self._superseded.get(row, ())):
                index, position = self._origin(place)
                replays, id_ = self._messages[index].replays, self._messages[index].letter(position)
                if replays is not None and id_ is not None:
                    letters.append((id_, replays.task_id))
        return letters

    def fall_back(self, rows: Collection[int]) -> set[int]:
        """Replace refused rows by the next older row of the same key; returns those for which there is one."""
        replaced = {row: older.pop() for row in rows if (older := self._superseded.get(row))}
        if replaced:
            places = list(self._places)
            for row, place in replaced.items():
                places[row] = place
            self._places, self._rows = places, self._sorted.take(pa.array(places))
        return set(replaced)

    def count(self, rows: Sequence[int], *, written: Collection[int], stale: Mapping[int, float] = _NO_ROWS) -> None:
        """Add these rows to the counts; those that are neither written nor stale are unchanged.

        `stale` has for each row by how many seconds it is late.
        """
        sent, late = self._by_message(rows), self._by_message(stale)
        self._late.extend(stale.values())
        self._behind.extend(stale.values())
        changed = sent if len(written) == len(rows) else self._by_message(written)
        for index, number in sent.items():
            counts = self.counts[index]
            counts.written += changed[index]
            counts.stale += late[index]
            counts.unchanged += number - changed[index] - late[index]
        self._count_superseded(rows)

    def _by_message(self, rows: Collection[int]) -> Counter[int]:
        if not rows:
            return Counter()
        found = pc.value_counts(self.columns(rows if isinstance(rows, range) else list(rows)).column(MESSAGE))
        return Counter(dict(zip(*(found.field(name).to_pylist() for name in ("values", "counts")), strict=True)))

    def _count_superseded(self, rows: Sequence[int]) -> None:
        """Count the rows that others of the batch replaced.

        One that a row of the same message replaced is superseded. One that another message's row replaced is stale or
        unchanged, as if the messages had been written one after the other, the newest first.
        """
        counted = rows if isinstance(rows, range) else set(rows)
        replaced = [
            (row, place, by)
            for row, older in self._superseded.items()
            if older and row in counted
            for place, by in zip(older, (*older[1:], self._places[row]), strict=True)
        ]
        if not replaced:
            return
        newest, older, replacing = (
            table.take(pa.array(numbers))
            for table, numbers in zip(
                (self._rows, self._sorted, self._sorted), zip(*replaced, strict=True), strict=True
            )
        )
        same = pc.equal(older.column(MESSAGE), replacing.column(MESSAGE)).to_pylist()
        distinct = differ(older, newest, [column.name for column in self.dataset.columns]).to_pylist()
        late = pc.subtract(*(table.column(ENQUEUED_AT).cast(pa.int64()) for table in (newest, older))).to_pylist()
        for place, index in enumerate(older.column(MESSAGE).to_pylist()):
            counts = self.counts[index]
            if same[place]:
                counts.superseded += 1
            elif distinct[place]:
                counts.stale += 1
                self._late.append(late[place] / 1e6)
            else:
                counts.unchanged += 1

    def written(self) -> Written:
        """Return what became of the batch, once all its rows are counted."""
        return Written(self.counts, self.letters.rejections(), self._late, self._behind, self._waiting)

    def _origin(self, place: int) -> tuple[int, int]:
        return self._sorted.column(MESSAGE)[place].as_py(), self._sorted.column(POSITION)[place].as_py()
