"""Letters are found by what they have in common, corrected, and gone once their rows are written."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.databases import Connection
from support.fixtures.store import Bar, Send
from support.processes import mds
from support.workers import Worker

from market_data_store import config, dead_letters
from market_data_store.cli.dead_letters import command
from market_data_store.dead_letters import DeadLetter, Where
from market_data_store.dead_letters.correcting import with_values
from market_data_store.dead_letters.summary import grouped
from market_data_store.errors import InvalidMessage

on_redis = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)

BAR = {"provider": "p", "symbol": "S", "interval": "1m", "ts": "2026-01-02T00:00:00Z", "open": 1, "high": 1, "low": 1}


def kept(database: Connection, *rows: Any, task_id: str = "t", **changes: Any) -> list[int]:
    """Keep letters of these rows; returns their ids."""
    given: dict[str, Any] = {"dataset": "bars", "reason": "close: 'x' is not a number", "enqueued_at": 0, **changes}
    given.setdefault("pattern", "close: … is not a number")
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    found = dead_letters.keep(
        database,
        [DeadLetter(task_id=task_id, position=at, row=text, **given) for at, text in enumerate(texts)],
    )
    return [id_ for id_ in found if id_ is not None]


@pytest.fixture
def with_settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DATABASE_URL", database_url)
    config.settings.cache_clear()
    yield
    config.settings.cache_clear()


def called(*arguments: str) -> str:
    done = CliRunner().invoke(command, arguments, env={"COLUMNS": "160"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_letters_are_found_by_reason_job_and_time(database: Connection) -> None:
    first, second = kept(database, BAR, {**BAR, "close": "x"})
    (third,) = kept(database, BAR, task_id="u", reason="vwap: 5 is wrong", pattern="vwap: … is wrong")
    dead_letters.locate(database, [("t", 1, 7)], job=3, file="a.csv")
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    database.execute("UPDATE dead_letters SET created_at = %s WHERE id = %s", [long_ago, first])

    def ids(**where: Any) -> list[int]:
        return [one.id for one in dead_letters.page(database, where=Where(**where))]

    assert ids(reason="CLOSE: … is") == [first, second]
    assert ids(reason="'x' is not") == [first, second]
    assert ids(job=3) == [second]
    assert (ids(task="u"), ids(task="t", reason="close")) == ([third], [first, second])
    assert ids(until=long_ago + timedelta(days=1)) == [first]
    assert ids(since=long_ago + timedelta(days=1), reason="vwap") == [third]
    assert ids(reason="%") == []
    assert dead_letters.count(database, where=Where(job=3)) == 1
    assert [one.id for one in dead_letters.stream(database, where=Where(job=3))] == [second]
    assert [row[0] for row in grouped(database, "day")] == [2, 1]
    assert [(row[0], row[2]) for row in grouped(database, "task")] == [(2, "t"), (1, "u")]
    assert [(row[0], *row[2:]) for row in grouped(database, "job")] == [(2, None, None), (1, 3, "a.csv")]
    assert dead_letters.purge(database, ids=None, dataset=None, where=Where(reason="vwap")) == 1
    assert ids() == [first, second]


@pytest.mark.usefixtures("with_settings")
def test_a_listing_says_where_a_loaded_row_was(database: Connection) -> None:
    kept(database, BAR)
    dead_letters.locate(database, [("t", 0, 1_002)], job=3, file="a.csv")
    assert "a.csv:1002: close: 'x' is not a number" in called("list", "--job", "3")
    assert called("list", "--job", "4") == "no dead letters\n"
    assert "a.csv" in called("list", "--by", "job", "--since", "2026-01-01")


@pytest.mark.usefixtures("with_settings")
def test_an_export_holds_rows_to_the_last_digit_and_leaves_out_messages(database: Connection, tmp_path: Path) -> None:
    row = '{"close": 0.12345678901234567890, "open": 1e400}'
    (id_,) = kept(database, row, defaults={"provider": "p"})
    kept(database, task_id="u")
    dead_letters.keep(
        database,
        [DeadLetter(task_id="v", position=0, reason="r", pattern="r", enqueued_at=0, body=b"{")],
    )
    file = tmp_path / "letters.ndjson"
    assert called("export", str(file), "--all") == (
        "1 letters written; 1 others hold a whole message, or no row, and are left out\n"
    )
    (line,) = file.read_text().splitlines()
    assert row in line
    said = json.loads(line)
    assert (said["letter"], said["dataset"], said["defaults"]) == (id_, "bars", {"provider": "p"})


def test_a_value_takes_the_place_of_all_names_of_its_field(database: Connection) -> None:
    kept(database, '{"ticker": "A", "symbol": "B", "close": 0.12345678901234567890, "vwap": "x"}', "[1]")
    letter, no_object = dead_letters.stream(database)
    changed = with_values(letter, {"symbol": "C", "vwap": ""})
    assert changed is not None
    assert changed.row is not None
    assert "0.12345678901234567890" in changed.row
    assert json.loads(changed.row).keys() & {"ticker", "symbol", "vwap"} == {"symbol"}
    assert json.loads(changed.row)["symbol"] == "C"
    assert with_values(no_object, {"symbol": "C"}) is None
    with pytest.raises(InvalidMessage, match="--set colour: bars has no such field"):
        with_values(letter, {"colour": "red"})
    with pytest.raises(InvalidMessage, match="close: 'red' is not a number"):
        with_values(letter, {"close": "red"})


@pytest.mark.slow
@on_redis
def test_corrected_letters_are_written_and_gone(
    worker: Worker,
    send: Send,
    bars: list[Bar],
    database: Connection,
    database_url: str,
    broker_url: str,
    tmp_path: Path,
) -> None:
    wrong = [{**bars[0], "close": "x"}, {**bars[1], "close": "y"}, {**bars[2], "vwap": "?"}, "no object"]
    send(wrong).get(timeout=30)
    variables = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    file = tmp_path / "letters.ndjson"
    exported = mds(tmp_path, "dead-letters", "export", str(file), "--reason", "close", **variables)
    assert exported.stdout == "2 letters written\n", exported
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["row"]["close"] = bars[0]["close"]
    lines[1]["row"]["close"] = "still wrong"
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"letter": 4711, "row": {}}]))
    loaded = mds(tmp_path, "load", "--letters", str(file), **variables)
    assert loaded.returncode == 1
    assert "2 sent: 1 gone, 1 refused again\n" in loaded.stdout, loaded
    assert "1 were not sent: they are not letters any more\n" in loaded.stdout
    assert database.execute("SELECT close FROM bars_ohlcv").fetchall() == [(bars[0]["close"],)]
    reasons = {one.position: one.reason for one in dead_letters.page(database)}
    assert reasons.keys() == {1, 2, 3}
    assert "still wrong" in reasons[1]

    set_ = mds(tmp_path, "dead-letters", "replay", "--all", "--set", "vwap=", "--set", "close=7", **variables)
    assert "2 sent: 2 gone, 0 refused again\n" in set_.stdout, set_
    assert "1 were not sent: they hold no object with fields" in set_.stdout
    assert database.execute("SELECT close, vwap FROM bars_ohlcv ORDER BY ts").fetchall()[1:] == [(7, None), (7, None)]
    assert [one.position for one in dead_letters.page(database)] == [3]

    file.write_text('{"letter": 1}\n')
    refused = mds(tmp_path, "load", "--letters", str(file), **variables)
    assert refused.returncode == 1
    assert f"error: {file}: line 1: Object missing required field `row`" in refused.stderr
