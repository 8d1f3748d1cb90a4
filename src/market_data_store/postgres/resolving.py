"""Writes rows of a batch, and finds out by experiment whose fault it is if that fails (see `failures`).

When `write_some` returns, every valid row is committed, and every refused one is a dead letter. When it raises
`DatasetUnavailable`, some rows may be written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from market_data_store import dead_letters
from market_data_store.datasets.registry import span_of
from market_data_store.errors import DatabaseUnavailable, DatasetUnavailable, LettersUnavailable, PartitionsMissing
from market_data_store.postgres.batch import REFUSED, Batch
from market_data_store.postgres.experiment import Findings, try_rows
from market_data_store.postgres.failures import (
    FEW_ROWS,
    LOCK_NOT_AVAILABLE,
    TOO_MUCH,
    UNIQUENESS,
    Cause,
    Fault,
    Others,
    is_the_servers,
    whose,
)
from market_data_store.postgres.found import Tables
from market_data_store.postgres.memory import Memory
from market_data_store.postgres.refusals import Refusal
from market_data_store.postgres.upsert import RowsDropped, RowsUnfit
from market_data_store.postgres.writing import letters_kept, write_rows

logger = logging.getLogger(__name__)


def write_some(
    connection: psycopg.Connection[Any],
    tables: Tables,
    batch: Batch,
    rows: range,
    refusals: Sequence[Refusal],
    memory: Memory,
    *,
    recalled: bool,
) -> None:
    """Commit these rows of the batch and these letters; raises Postgres's error if it is the server's, or one of ours.

    If they are `recalled`, the rows that have a letter are known, and not asked for again.
    """
    _Resolving(connection, tables, batch, rows, refusals, memory, recalled).write()


def recall(connection: psycopg.Connection[Any], batch: Batch, memory: Memory) -> None:
    """Remember which rows of these messages Postgres has refused before, by their letters."""
    memory.refuse(_refused(connection, batch, memory))


def _refused(connection: psycopg.Connection[Any], batch: Batch, memory: Memory) -> dict[dead_letters.Origin, Cause]:
    try:
        with letters_kept(connection):
            found = dead_letters.refused(connection, memory.task_ids) if batch.keeps_letters else {}
    except LettersUnavailable:
        found = {}  # whoever has to keep a letter reports it
    return {
        origin: Cause(code, reason.removeprefix(f"{REFUSED}: "))
        for origin, (code, reason) in found.items()
        if reason.startswith(REFUSED)
    }


class _Resolving:
    def __init__(
        self,
        connection: psycopg.Connection[Any],
        tables: Tables,
        batch: Batch,
        rows: range,
        refusals: Sequence[Refusal],
        memory: Memory,
        recalled: bool,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._batch = batch
        self._memory = memory
        self._recalled = recalled
        self._rows: Sequence[int] = rows
        #: What becomes a dead letter.
        self._refusals = list(refusals)
        self._wrote = False

    def write(self) -> None:
        while True:
            try:
                self._resolve()
            except RowsUnfit as unfit:  # none of `_rows` is committed
                self._rows = self._fitting(self._rows, unfit)
            except RowsDropped as dropped:  # nor here
                self._refuse(dropped.rows)
            except (LettersUnavailable, PartitionsMissing):
                raise
            except DatasetUnavailable as error:
                if self._memory.trouble is None or self._memory.trouble.reason != error.reason:
                    raise self._unavailable(Cause(error.sqlstate or "", error.reason)) from error  # that of `found`
                raise
            else:
                return

    def _resolve(self) -> None:
        has_failed = self._memory.tries.failures > 0
        if self._memory.refused or has_failed:
            self._leave_out_the_known(look=has_failed)
        if self._memory.trouble is not None and self._rows:
            self._experiment()  # without an ERROR in Postgres's log each time
            return
        try:
            self._write(self._rows, self._refusals, copies=self._memory.novelty.may_be_new)
        except psycopg.Error as error:
            cause = self._of_a_row_or_the_table(error)
            if cause.sqlstate in TOO_MUCH:
                self._write_in_parts(cause)
            else:
                self._leave_out_the_known(look=True)
                self._experiment()

    def _write(self, rows: Sequence[int], refusals: Sequence[Refusal] = (), *, copies: bool = False) -> None:
        write_rows(self._connection, self._tables, self._batch, rows, refusals, self._memory, copies=copies)
        self._wrote = self._wrote or bool(rows)

    def _of_a_row_or_the_table(self, error: psycopg.Error) -> Cause:
        """Return the cause of an error that an experiment can explain; raise the others."""
        if self._connection.broken or is_the_servers(error) or not self._rows:
            raise error
        cause = Cause.of(error)
        if cause.sqlstate == LOCK_NOT_AVAILABLE:
            raise self._unavailable(cause) from error
        if cause.is_no_partition and span_of(self._batch.dataset) is not None:  # it is gone since it was looked for
            raise PartitionsMissing(self._batch.dataset.name, cause.sqlstate, cause.reason) from error
        return cause

    def _experiment(self) -> None:
        """Find the refused rows and write the others."""
        again: set[int] = set()
        while self._rows:
            try:
                found = try_rows(self._connection, self._tables, self._batch, self._rows)
            except psycopg.Error as error:
                self._write_in_parts(self._of_a_row_or_the_table(error))
                return
            self._judge_all(found, len(self._rows))
            others = [row for row in self._rows if row not in found.refused]
            again = self._refuse(self._refused_again(found.refused, others[-1:]) if others else found.refused)
            if not again:
                break
        try:
            self._write(self._rows, self._refusals)
        except psycopg.Error as error:
            self._write_in_parts(self._of_a_row_or_the_table(error))

    def _write_in_parts(self, cause: Cause) -> None:
        """Commit the rows in as many parts as it takes, where fewer rows go in at once, or no experiment can be made.

        The first and the last row are tried first: if neither goes in, fewer rows do not help.
        """
        rows = self._rows
        first = sorted({0, len(rows) - 1})
        parts: list[Sequence[int]] = [[rows[place]] for place in first]
        parts += [rows[1:-1]] if len(rows) > 2 else []
        refused: dict[int, Cause] = {}
        while parts:
            part = parts.pop(0)
            try:
                self._write(part)
            except RowsUnfit as unfit:
                parts[:0] = filter(None, [self._fitting(part, unfit)])
            except RowsDropped as dropped:
                again = self._refuse(dropped.rows)
                parts[:0] = filter(None, [[row for row in part if row not in dropped.rows or row in again]])
            except psycopg.Error as error:
                cause = self._of_a_row_or_the_table(error)
                middle = len(part) // 2
                if middle:
                    parts[:0] = [part[:middle], part[middle:]]
                    continue
                refused[part[0]] = cause
                if len(refused) == len(first) and not self._wrote:
                    self._judge(cause, Others.UNKNOWN, len(rows))
        self._rows = list(refused)
        if self._wrote:
            refused = self._refused_again(refused)
        for row_cause in {cause.kind: cause for cause in refused.values()}.values():
            self._judge(row_cause, Others.ROWS if self._wrote else Others.UNKNOWN, len(refused))
        if self._refuse(refused):
            self._experiment()
            return
        try:
            self._write(self._rows, self._refusals)
        except psycopg.Error as error:
            raise self._unavailable(self._of_a_row_or_the_table(error)) from error

    def _refused_again(self, refused: dict[int, Cause], other: Sequence[int] = ()) -> dict[int, Cause]:
        """Return which of these rows are refused once more, after others went in; `other` is one that was not written.

        Meanwhile the table may have been broken or mended: a right or a trigger's function can change at any moment.
        """
        doubtful = [row for row, cause in refused.items() if cause.sqlstate not in UNIQUENESS]
        if not doubtful:
            return refused
        try:
            found = try_rows(self._connection, self._tables, self._batch, [*doubtful, *other])
        except psycopg.Error as error:
            cause = self._of_a_row_or_the_table(error)
            if other or cause.kind in {each.kind for each in refused.values()}:
                raise self._unavailable(cause) from error
            return refused  # no experiment can be made
        self._judge_all(found, len(doubtful) + len(other))
        return {row: cause for row, cause in refused.items() if row in found.refused or row not in doubtful}

    def _judge_all(self, found: Findings, tried: int) -> None:
        """Raise what the failure is if all of the rows that were tried are refused, unless they are at fault."""
        if len(found.refused) < tried:
            return
        for cause in {cause.kind: cause for cause in found.refused.values()}.values():
            others = found.others(cause)
            # What went in before may have been before the table was broken.
            others = Others.ROWS if self._wrote and others is not Others.NOTHING else others
            self._judge(cause, others, tried)

    def _judge(self, cause: Cause, others: Others, refused: int) -> None:
        """Raise what the failure is, unless the rows are at fault."""
        match whose(cause, self._batch.dataset, others, refused):
            case Fault.DATASET:
                raise self._unavailable(cause)
            case Fault.SERVER:
                raise DatabaseUnavailable(f"Postgres: {cause}")
            case Fault.ROW:
                pass

    def _unavailable(self, cause: Cause) -> DatasetUnavailable:
        name = self._batch.dataset.name
        if self._memory.trouble is None or self._memory.trouble.kind != cause.kind:
            logger.warning("%s: no row can be written: %s", name, cause)
        self._memory.trouble = cause
        return DatasetUnavailable(name, cause.sqlstate, cause.reason)

    def _refuse(self, refused: Mapping[int, Cause]) -> set[int]:
        """Turn rows into letters; returns those in whose place the next older row of the same key is to be written."""
        refusals = self._batch.refuse(refused)
        self._memory.refuse({dead_letters.origin_of(of.letter): refused[row] for row, of in refusals.items()})
        for cause in {cause.kind: cause for cause in refused.values()}.values():
            if self._memory.is_news(cause):
                name, count = self._batch.dataset.name, sum(other.kind == cause.kind for other in refused.values())
                logger.warning("%s: Postgres refuses rows (%d of this batch): %s", name, count, cause)
        self._refusals = [*self._refusals, *refusals.values()]
        again = self._batch.fall_back(refused)
        self._rows = [row for row in self._rows if row not in refused or row in again]
        return again

    def _fitting(self, rows: Sequence[int], unfit: RowsUnfit) -> list[int]:
        """Turn those of these rows that do not fit into letters; returns those that are to be written."""
        refusals = self._batch.refuse_unfit(unfit.rows)
        again = self._batch.fall_back(unfit.rows)
        rest = [row for row in rows if row not in unfit.rows or row in again]
        cause = unfit.cause_in(self._batch.dataset.table.name)
        if not rest and len(unfit.rows) > FEW_ROWS and not self._wrote:
            raise self._unavailable(cause)
        if self._memory.is_news(cause):
            logger.warning("%s: %d rows of this batch do not fit: %s", self._batch.dataset.name, len(unfit.rows), cause)
        self._refusals = [*self._refusals, *refusals.values()]
        return rest

    def _leave_out_the_known(self, *, look: bool) -> None:
        """Refuse the rows that this process has refused before, and with `look` those that have a letter of another.

        Whether a row fits is asked anew each time: one statement says so of all of them.
        """
        known = dict(self._memory.refused)
        if look and not self._recalled:
            known |= _refused(self._connection, self._batch, self._memory)
        while causes := self._known(known):
            if not self._refuse(causes):
                break

    def _known(self, known: Mapping[dead_letters.Origin, Cause]) -> dict[int, Cause]:
        rows = self._batch.rows_of({origin[:2] for origin in known}, self._rows) if known else set()
        # Another message may have the same task id, so the row must be the same, too.
        letters = self._batch.refuse(dict.fromkeys(rows, Cause("", "")))
        origins = {row: dead_letters.origin_of(of.letter) for row, of in letters.items()}
        return {row: known[origin] for row, origin in origins.items() if origin in known}
