"""Finds out which rows of a batch Postgres refuses, by trying, and writes nothing.

One statement makes all the tries within the server. So a try costs no round trip, a refusal is no ERROR in Postgres's
log, and a batch costs the same few statements whatever is in it. Around a refused row the tries halve the rows: their
number grows with that of the refused rows and with the logarithm of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
from psycopg import sql

from market_data_store.datasets import Dataset
from market_data_store.postgres.batch import Batch
from market_data_store.postgres.copying import copy_rows
from market_data_store.postgres.failures import SERVERS_CLASSES, TIMELY, Cause, Others
from market_data_store.postgres.found import Tables
from market_data_store.postgres.statements import Casts, one_line, parts_of, write_copy_of, write_of
from market_data_store.postgres.upsert import RowsUnfit, unfit_rows

#: `mds_next` is the first row that was not tried yet. `mds_known` is the last of the rows from there on that are known
#: to hold a refused one. After a refused row the steps begin with one row and are doubled, so that a batch in which all
#: rows are refused is tried once, and not once for each level of the halving.
#:
#: The errors of the server end it, and so do limits of time. Constraints that are checked when a transaction is
#: committed are checked at once. At last, if all rows were refused, or there are none, a copy of a stored row is tried.
_TRY = """
DECLARE
    mds_next integer := 0;
    mds_last CONSTANT integer := {last};
    mds_known integer;
    mds_size integer := {last} + 1;
    mds_to integer;
    mds_table text;
    mds_column text;
    mds_constraint text;
BEGIN
    CREATE TEMPORARY TABLE {refused} (
        n integer, sqlstate text, reason text, of_table text, of_column text, of_constraint text
    ) ON COMMIT DROP;
    CREATE INDEX ON {stage} (n);
    SET CONSTRAINTS ALL IMMEDIATE;
    WHILE mds_next <= mds_last LOOP
        IF mds_known IS NULL THEN
            mds_to := least(mds_next + mds_size - 1, mds_last);
        ELSE
            mds_to := mds_next + (mds_known - mds_next) / 2;
        END IF;
        BEGIN
            {write};
            IF mds_to = mds_known THEN
                mds_known := NULL;
            END IF;
            mds_next := mds_to + 1;
            mds_size := 2 * mds_size;
        EXCEPTION WHEN OTHERS THEN
            IF left(SQLSTATE, 2) = ANY ({servers}) OR SQLSTATE = ANY ({timely}) THEN
                RAISE;
            ELSIF mds_to > mds_next THEN
                mds_known := mds_to;
            ELSE
                GET STACKED DIAGNOSTICS
                    mds_table = TABLE_NAME, mds_column = COLUMN_NAME, mds_constraint = CONSTRAINT_NAME;
                INSERT INTO {refused} VALUES (mds_next, SQLSTATE, SQLERRM, mds_table, mds_column, mds_constraint);
                mds_next := mds_next + 1;
                mds_known := NULL;
                mds_size := 1;
            END IF;
        END;
    END LOOP;
    IF (SELECT count(*) FROM {refused}) > mds_last THEN
        BEGIN
            {copy};
            IF FOUND THEN
                INSERT INTO {refused} (n) VALUES (-1);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            IF left(SQLSTATE, 2) = ANY ({servers}) OR SQLSTATE = ANY ({timely}) THEN
                RAISE;
            END IF;
            GET STACKED DIAGNOSTICS
                mds_table = TABLE_NAME, mds_column = COLUMN_NAME, mds_constraint = CONSTRAINT_NAME;
            INSERT INTO {refused} VALUES (-1, SQLSTATE, SQLERRM, mds_table, mds_column, mds_constraint);
        END;
    END IF;
END
"""
_FOUND = "SELECT n, sqlstate, reason, of_table, of_column, of_constraint FROM {refused}"


@dataclass(frozen=True, slots=True)
class Findings:
    """What an experiment has shown."""

    #: The refused rows, by their numbers in the batch.
    refused: dict[int, Cause]
    #: Whether a copy of a stored row goes in; None if it was not tried, or no row is stored.
    copy_goes_in: bool | None
    #: Why it does not.
    copys_cause: Cause | None

    def others(self, cause: Cause) -> Others:
        """Return what goes in, where no row of the batch does."""
        if self.copy_goes_in:
            return Others.A_COPY
        is_same = self.copys_cause is not None and self.copys_cause.kind == cause.kind
        return Others.NOTHING if is_same else Others.UNKNOWN


def try_rows(connection: psycopg.Connection[Any], tables: Tables, batch: Batch, rows: Sequence[int]) -> Findings:
    """Find out which of these rows are refused; without rows, whether a copy of a stored row goes in.

    Raises the error of Postgres if it comes from the server, or if the experiment cannot be made, and `RowsUnfit`
    before it is made.
    """
    try:
        with tables.transaction(connection, batch.dataset) as table, connection.cursor() as cursor:
            statements = table.statements
            cursor.execute(statements.stage)
            if rows:
                columns = batch.columns(rows)
                copy_rows(cursor, statements.copy_to_stage, batch.dataset, columns, numbers=range(len(rows)))
                if unfit := unfit_rows(cursor, statements, statements.staged, {}):
                    raise RowsUnfit({rows[n]: cast for n, cast in unfit.items()})
            cursor.execute(_try_of(batch.dataset, statements.casts, len(rows) - 1))
            found = cursor.execute(_found_of(batch.dataset)).fetchall()
            raise psycopg.Rollback
    except psycopg.Rollback:
        causes = {n: Cause(code, reason, *(name or None for name in names)) for n, code, reason, *names in found}
    copys = causes.pop(-1, None)
    goes_in = None if copys is None else copys.sqlstate is None
    refused = {rows[n]: cause for n, cause in causes.items()}
    return Findings(refused, goes_in, None if goes_in else copys)


def _try_of(dataset: Dataset, casts: Casts, last: int) -> sql.Composed:
    parts = parts_of(dataset, casts)
    staged = parts["stage"] + sql.SQL(" AS staged")
    body = one_line(_TRY).format(
        last=sql.Literal(last),
        servers=sql.Literal(sorted(SERVERS_CLASSES)),
        timely=sql.Literal(sorted(TIMELY)),
        write=write_of(dataset, casts, staged, sql.SQL("n BETWEEN mds_next AND mds_to")),
        copy=write_copy_of(dataset, casts),
        **parts,
    )
    return sql.SQL("DO {}").format(sql.Literal(body.as_string()))


@cache
def _found_of(dataset: Dataset) -> sql.Composed:
    return sql.SQL(_FOUND).format(**parts_of(dataset))
