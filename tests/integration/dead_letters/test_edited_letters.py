"""A letter is corrected in an editor and sent again, and what cannot be edited stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.databases import Connection
from support.fixtures.store import Bar, Send
from support.processes import mds
from support.workers import Worker

from market_data_store import config, dead_letters
from market_data_store.cli.main import cli
from market_data_store.dead_letters import DeadLetter
from market_data_store.dead_letters.correcting import edited, text_of
from market_data_store.errors import InvalidMessage

on_redis = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)

ROW = '{"close": 0.12345678901234567890, "open": 1e400}'


def kept(database: Connection, **changes: Any) -> int:
    given: dict[str, Any] = {"task_id": "t", "position": 0, "reason": "r", "pattern": "r", "enqueued_at": 0, **changes}
    (id_,) = dead_letters.keep(database, [DeadLetter(**given)])
    assert id_ is not None
    return id_


@pytest.fixture
def with_settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", "redis://127.0.0.1:1/0")  # nothing is to be sent
    config.settings.cache_clear()
    yield
    config.settings.cache_clear()


def edit(monkeypatch: pytest.MonkeyPatch, id_: int, editor: str) -> Result:
    monkeypatch.setenv("VISUAL", editor)
    return CliRunner().invoke(cli, ["dead-letters", "edit", str(id_)], prog_name="mds")


def test_what_is_not_changed_is_kept_to_the_last_digit(database: Connection) -> None:
    id_ = kept(database, dataset="bars", row=ROW, defaults={"provider": "p"})
    letter = dead_letters.get(database, id_)
    assert letter is not None
    text = text_of(letter)
    assert text is not None
    changed = edited(letter, text.replace("1e400", "2"))
    assert changed.row is not None
    assert "0.12345678901234567890" in changed.row
    assert json.loads(changed.row)["open"] == 2
    assert json.loads(changed.defaults or "") == {"provider": "p"}
    for wrong, said in (
        (text.replace("1e400", "x"), f"letter {id_}: JSON is malformed"),
        (text.replace(f'"letter": {id_}', '"letter": 99'), f"letter {id_}: `letter` is 99; change `row` only"),
    ):
        with pytest.raises(InvalidMessage, match=said):
            edited(letter, wrong)


@pytest.mark.usefixtures("with_settings")
def test_without_a_change_nothing_is_sent(database: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = kept(database, dataset="bars", row=ROW)
    done = edit(monkeypatch, id_, "true")
    assert (done.exit_code, done.output) == (0, "nothing was changed; the letter stays\n")
    refused = edit(monkeypatch, id_, "sed -i s/1e400/x/")
    assert isinstance(refused.exception, InvalidMessage)
    assert "change `row` only, and keep it JSON" in str(refused.exception)
    whole = edit(monkeypatch, kept(database, task_id="u", body=b"{"), "true")
    assert "holds no row, but a whole message" in str(whole.exception)
    assert "is not a dead letter" in str(edit(monkeypatch, 4711, "true").exception)
    assert dead_letters.count(database) == 2


@pytest.mark.slow
@on_redis
def test_an_edited_letter_is_written_and_gone(
    worker: Worker,
    send: Send,
    bars: list[Bar],
    database: Connection,
    database_url: str,
    broker_url: str,
    tmp_path: Path,
) -> None:
    send([{**bars[0], "close": "1,5"}, {**bars[1], "close": "1,6"}]).get(timeout=30)
    before = database.execute("SELECT enqueued_at FROM dead_letters").fetchall()
    first, second = (letter.id for letter in dead_letters.page(database))
    variables = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    done = mds(tmp_path, "dead-letters", "edit", str(first), **variables, VISUAL="sed -i s/1,5/1.5/")
    assert (done.returncode, done.stdout) == (0, "1 sent: 1 gone, 0 refused again\n"), done
    assert database.execute("SELECT close, enqueued_at FROM bars_ohlcv").fetchall() == [(1.5, before[0][0])]
    again = mds(tmp_path, "dead-letters", "edit", str(second), **variables, VISUAL="sed -i s/1,6/1;6/")
    assert (again.returncode, again.stdout) == (1, "1 sent: 0 gone, 1 refused again\n"), again
    left = dead_letters.get(database, second)
    assert left is not None
    assert ("1,6" in (left.row or ""), "1;6" in left.reason) == (True, True)
