"""Whether two rows of a file have the same key and different values: then one of them would vanish.

Most files are in the order of time, which proves that no key stands twice, at no cost. Of the others, each key's hash
is kept in a table of DuckDB's, which goes to TMPDIR where it is large.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

_MAKE = "CREATE OR REPLACE TABLE seen (t BIGINT, k UBIGINT, v UBIGINT, r BIGINT)"
_TWICE = """
    SELECT t, k, count(*) AS n, count(DISTINCT v) AS values, min(r) AS first, max(r) AS last
    FROM seen WHERE t IS NOT NULL GROUP BY t, k HAVING count(*) > 1
"""


@dataclass(frozen=True, slots=True)
class Clash:
    """Keys that stand several times with different values."""

    keys: int
    #: Rows that a later row of the file replaces, or would.
    rows: int
    #: The indices of two rows with one key.
    first: int
    second: int


class Keys:
    """Sees the keys of a file go by. `compares` says whether values are compared; else only the order is looked at."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, compares: bool) -> None:
        self.compares = compares
        self.rises = self.falls = True
        self._connection = connection.cursor()  # rows are added while a pass over the file is under way
        self._last: tuple[int | None, int | None] = (None, None)
        self._runs: set[int] = set()
        if compares:
            self._connection.execute(_MAKE)

    @property
    def are_proved(self) -> bool:
        """Whether the order shows that no key stands twice."""
        return self.rises or self.falls

    def add(self, ticks: pa.Array, keys: pa.Array, values: pa.Array, rows: pa.Array) -> None:
        """Look at the keys of rows, whose indices are `rows`."""
        if self.compares:
            self._connection.register("seen_rows", pa.table({"t": ticks, "k": keys, "v": values, "r": rows}))
            self._connection.execute("INSERT INTO seen SELECT t, k, v, r FROM seen_rows")
            self._connection.unregister("seen_rows")
        if len(ticks) == 0 or not self.are_proved:
            return
        if ticks.null_count:
            self.rises = self.falls = False
            return
        for at, end in self._runs_of(keys):
            run = ticks.slice(at, end - at)
            key = keys[at].as_py()
            tick, last_key = self._last
            if key == last_key and tick is not None:
                self.rises = self.rises and run[0].as_py() > tick
                self.falls = self.falls and run[0].as_py() < tick
            elif key in self._runs or len(self._runs) > 100_000:
                self.rises = self.falls = False
            self._runs.add(key)
            if len(run) > 1:
                later, earlier = run.slice(1), run.slice(0, len(run) - 1)
                self.rises = self.rises and bool(pc.all(pc.greater(later, earlier)).as_py())
                self.falls = self.falls and bool(pc.all(pc.less(later, earlier)).as_py())
            self._last = (run[-1].as_py(), key)
            if not self.are_proved:
                return

    @staticmethod
    def _runs_of(keys: pa.Array) -> list[tuple[int, int]]:
        ends = pc.run_end_encode(keys).run_ends.to_pylist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def clash(self) -> Clash | None:
        """Return what was found of keys that stand several times with different values."""
        (found,) = self._connection.sql(
            f"SELECT count(*), coalesce(sum(n - 1), 0), min(first) FROM ({_TWICE}) WHERE values > 1"
        ).fetchall()
        keys, rows, first = found
        if not keys:
            return None
        ((second,),) = self._connection.sql(
            f"SELECT min(r) FROM seen JOIN (SELECT t, k, v FROM seen WHERE r = {int(first)}) AS one "
            f"ON seen.t = one.t AND seen.k = one.k AND seen.v <> one.v WHERE seen.r > {int(first)}"
        ).fetchall()
        return Clash(int(keys), int(rows), int(first), int(second))

    def equal_rows(self) -> int:
        """Return the rows that equal an earlier one with the same key."""
        ((rows,),) = self._connection.sql(f"SELECT coalesce(sum(n - 1), 0) FROM ({_TWICE}) WHERE values = 1").fetchall()
        return int(rows)
