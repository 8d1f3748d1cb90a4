"""A load of many files is killed, and started again: each row is there once, and little is sent twice."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
import redis
from support.databases import Connection
from support.fixtures.store import WORKERS
from support.processes import MDS, mds, running
from support.waiting import wait_until
from support.workers import working

FILES = 20
#: One file is large, so that it is in several batches.
LARGE, LARGE_ROWS, ROWS = 3, 25_000, 300
BAD_ROW = 100
ROUNDS = 2


def rows_of(number: int) -> int:
    return LARGE_ROWS if number == LARGE else ROWS


TOTAL = sum(map(rows_of, range(FILES)))


def written_files(directory: Path) -> Path:
    """Write files of bars, each of another symbol, and with a row that nobody can store."""
    directory.mkdir()
    for number in range(FILES):
        with (directory / f"{number:02}.csv").open("w") as file:
            file.write("symbol,ts,open,high,low,close,volume\n")
            for row in range(rows_of(number)):
                close = "none at all" if row == BAD_ROW else row
                file.write(f"S{number},{1_700_000_000 + 60 * row},{row},{row},{row},{close},{number}\n")
    return directory


def stored(database: Connection) -> int:
    ((rows,),) = database.execute("SELECT count(*) FROM bars_ohlcv").fetchall()
    return int(rows)


def noted(database: Connection) -> int:
    """How many good rows the newest run has noted as safe."""
    ((position,),) = database.execute("SELECT metadata->'position' FROM job_runs ORDER BY id DESC LIMIT 1").fetchall()
    safe = sum(rows_of(number) - 1 for number in range(position["done"]))
    mark = position["rows"].get("0 ", 0)
    return int(safe + mark - (mark > BAD_ROW))


def queued(redis_url: str) -> int:
    with closing(redis.Redis.from_url(redis_url)) as broker:
        return sum(int(str(number)) for number in (broker.llen("store.write"), broker.hlen("unacked")))


@pytest.mark.slow
def test_a_load_that_is_killed_goes_on_where_it_was(
    request: pytest.FixtureRequest, redis_url: str, database_url: str, database: Connection, tmp_path: Path
) -> None:
    files = written_files(tmp_path / "files")
    command = ["load", str(files), "--recursive", "--dataset", "bars", "--provider", "p", "--interval", "1m"]
    variables = {"DATABASE_URL": database_url, "BROKER_URL": redis_url}
    with working(tmp_path, **variables) as worker:
        request.node.stash[WORKERS] = [worker]
        chance = Random("loads")  # noqa: S311  # no secret
        for _ in range(ROUNDS):
            database.execute("TRUNCATE bars_ohlcv, dead_letters, job_runs")
            be_killed(chance.randrange(1, TOTAL * 9 // 10), command, variables, redis_url, database, tmp_path)


def be_killed(
    at: int,
    command: list[str],
    variables: dict[str, str],
    redis_url: str,
    database: Connection,
    directory: Path,
) -> None:
    """Kill a load once so many rows are stored, and start it again."""
    with running(*MDS, *command, directory=directory, environment=variables) as process:
        wait_until(lambda: stored(database) >= at, lambda: process.said("so many rows"), timeout_s=240)
        safe = noted(database)
    wait_until(lambda: not queued(redis_url), "the queue is empty", timeout_s=60)
    before = stored(database)
    assert before < TOTAL - FILES, "it was killed too late"
    again = mds(directory, *command, "--json", **variables)
    assert again.returncode == 1, again  # for the rejects
    said = json.loads(again.stdout)
    assert stored(database) == TOTAL - FILES
    # What was stored and was not known to be is sent again, and changes nothing.
    assert said["written"] == TOTAL - FILES - before
    assert said["unchanged"] <= before - safe
    assert said["stale"] == said["superseded_in_messages"] == 0
    assert safe > 0 or at < LARGE_ROWS
    letters = "SELECT file, line FROM dead_letters WHERE line IS NOT NULL GROUP BY file, line ORDER BY file"
    expected = [(f"{number:02}.csv", BAD_ROW + 2) for number in range(FILES)]
    assert database.execute(letters).fetchall() == expected
    # It is done: the next one is another load.
    done = json.loads(mds(directory, *command, "--json", **variables).stdout)
    assert (done["written"], done["unchanged"], done["sent_before"]) == (0, TOTAL - FILES, 0)
