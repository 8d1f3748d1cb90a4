"""The endpoints of dead letters that filter, count, correct, follow and export, on real servers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from support.brokers import on_redis
from support.waiting import wait_until
from support.web import Web
from support.workers import Worker

from market_data_store import dead_letters
from market_data_store.dead_letters import DeadLetter

ROW = '{"symbol":"S","name":"n","ts":1704067200,"value":1.10000000000000000001}'


def letter(position: int, pattern: str, row: str | None = ROW, **given: Any) -> DeadLetter:
    common = {"dataset": "signals", "task_id": "t", "enqueued_at": 0, "reason": pattern.replace("…", "7")}
    return DeadLetter(**{**common, "position": position, "pattern": pattern, "row": row, **given})


def keep(database: psycopg.Connection[Any], *letters: DeadLetter) -> list[int]:
    return [id_ for id_ in dead_letters.keep(database, letters) if id_ is not None]


def stored(database: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return database.execute("SELECT provider, symbol, value FROM signals ORDER BY symbol").fetchall()


def test_letters_are_listed_and_counted_by_what_they_share(web: Web, database: psycopg.Connection[Any]) -> None:
    ids = keep(
        database,
        letter(0, "provider: missing"),
        letter(1, "provider: missing", task_id="u"),
        letter(2, "ts: … is not a time"),
        letter(3, "provider: missing", dataset=None, row=None, body=b"{"),
    )
    dead_letters.locate(database, [("t", 2, 9)], job=7, file="a.csv")
    database.execute("UPDATE dead_letters SET pattern = NULL, created_at = %s WHERE id = %s", ["2026-01-02", ids[1]])

    def listed(query: str) -> list[int]:
        answer = web.admin("GET", f"/dead-letters?{query}").json()
        assert answer["count"] == len(answer["letters"])
        return [each["id"] for each in answer["letters"]]

    assert listed("reason=NOT A TIME") == [ids[2]]
    assert listed("pattern=provider: missing") == [ids[0], ids[3]]
    assert listed("pattern=provider: missing&whole=false") == [ids[0]]
    assert listed("whole=true") == [ids[3]]
    assert listed("pattern=") == [ids[1]]
    assert listed("job=7") == [ids[2]]
    assert listed("task=u") == [ids[1]]
    assert listed("until=2026-01-03") == listed("until=2026-01-02T02:00:00Z") == [ids[1]]
    assert listed("since=2026-01-03T00:00:00") == [ids[0], ids[2], ids[3]]

    def groups(query: str) -> list[dict[str, Any]]:
        found = web.admin("GET", f"/dead-letters/groups?{query}").json()["groups"]
        return [{n: v for n, v in group.items() if v is not None and n != "newest"} for group in found]

    assert groups("dataset=signals") == [
        {"count": 1, "dataset": "signals", "pattern": "provider: missing"},
        {"count": 1, "dataset": "signals", "pattern": "ts: … is not a time"},
        {"count": 1, "dataset": "signals"},
    ]
    assert groups("by=job&limit=1") == [{"count": 3}]
    assert groups("by=job&job=7") == [{"count": 1, "job": 7, "file": "a.csv"}]
    assert groups("by=day&task=u") == [{"count": 1, "day": "2026-01-02"}]
    for wrong in ("by=row", "since=now", "job=0", "reason=%00", "dataset=nothing"):
        assert web.admin("GET", f"/dead-letters/groups?{wrong}").status_code == 422, wrong
    assert (
        web.client.get("/dead-letters/groups").status_code == web.client.get("/dead-letters/export").status_code == 401
    )


@on_redis
def test_a_field_is_set_in_portions_and_their_outcome_is_told(
    web: Web, worker: Worker, database: psycopg.Connection[Any]
) -> None:
    rows = [f'{{"symbol":"S{n}","name":"n","ts":1704067200,"value":{n}}}' for n in range(5)]
    keep(database, *(letter(n, "provider: missing", row, task_id=f"t{n}") for n, row in enumerate(rows)))
    (odd,) = keep(database, letter(9, "provider: missing", "[1]", task_id="z"))
    (left,) = keep(database, letter(10, "ts: … is not a time", '{"ts":"never"}', task_id="z"))
    ask: dict[str, Any] = {"pattern": "provider: missing", "dataset": "signals", "set": {"provider": "P"}, "limit": 2}
    sent, uncorrected, after = [], 0, 0
    while after is not None:
        answer = web.admin("POST", "/dead-letters/replay", json={**ask, "after": after}).json()
        sent.append(answer["sent"])
        uncorrected += answer["uncorrected"]
        portion = answer["portion"]
        told = {"ids": portion["ids"], "since": portion["since"]}
        after = portion["last"]
        wait_until(partial(is_settled, web, told), "the portion is settled")
        assert outcome(web, told) == {"gone": len(told["ids"]), "waiting": 0, "refused": 0}
    assert (sent, uncorrected) == ([2, 2, 1], 1)
    assert stored(database) == [("P", f"S{n}", float(n)) for n in range(5)]
    assert [each["id"] for each in web.admin("GET", "/dead-letters").json()["letters"]] == [odd, left]

    unknown = web.admin("POST", "/dead-letters/replay", json={"all": True, "set": {"provder": "P"}})
    assert (unknown.status_code, "signals has no such field" in unknown.json()["error"]) == (422, True)
    both = web.admin("POST", "/dead-letters/replay", json={"all": True, "reason": "x"})
    assert both.status_code == 422


def is_settled(web: Web, told: dict[str, Any]) -> bool:
    return bool(outcome(web, told)["waiting"] == 0)


def outcome(web: Web, told: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = web.admin("POST", "/dead-letters/outcome", json=told).json()
    return answer


@on_redis
def test_one_letter_is_edited_to_the_last_digit(web: Web, worker: Worker, database: psycopg.Connection[Any]) -> None:
    first, whole = keep(database, letter(0, "provider: missing"), letter(1, "body: …", None, dataset=None, body=b"{"))
    shown = web.admin("GET", f"/dead-letters/{first}").json()
    assert '"value": 1.10000000000000000001' in shown["text"]
    assert web.admin("GET", f"/dead-letters/{whole}").json()["text"] is None

    def edit(id_: int, text: str) -> Any:
        return web.admin("POST", f"/dead-letters/{id_}/edit", json={"text": text})

    assert edit(whole, shown["text"]).status_code == 422
    assert edit(4711, shown["text"]).status_code == 404
    broken = edit(first, shown["text"][:-4])
    assert (broken.status_code, "change `row` only" in broken.json()["error"]) == (422, True)
    worse = edit(first, shown["text"].replace('"symbol"', '"provider": "", "symbol"')).json()
    wait_until(
        lambda: outcome(web, {n: worse["portion"][n] for n in ("ids", "since")})["refused"] == 1, "refused again"
    )
    assert json.loads(web.admin("GET", f"/dead-letters/{first}").json()["row"]) == json.loads(ROW)
    assert edit(first, shown["text"].replace('"symbol"', '"provider": "P", "symbol"')).json()["sent"] == 1
    wait_until(lambda: web.admin("GET", f"/dead-letters/{first}").status_code == 404, "the letter is gone")
    assert stored(database) == [("P", "S", 1.1)]


def test_letters_are_exported_and_purged_by_their_filter(web: Web, database: psycopg.Connection[Any]) -> None:
    ids = keep(database, *(letter(n, "provider: missing") for n in range(50)), letter(99, "ts: … is not a time"))
    keep(database, letter(100, "body: …", None, dataset=None, body=b"{"))
    exported = web.admin("GET", "/dead-letters/export?reason=provider")
    assert "letters.ndjson" in exported.headers["content-disposition"]
    lines = [json.loads(line) for line in exported.text.splitlines()]
    assert [line["letter"] for line in lines] == ids[:50]
    assert lines[0]["row"] == json.loads(ROW)
    assert len(web.admin("GET", "/dead-letters/export").text.splitlines()) == 51
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    purge = {"reason": "provider", "until": tomorrow}
    assert web.admin("POST", "/dead-letters/purge", json={**purge, "expected": 49}).json()["count"] == 50
    assert web.admin("POST", "/dead-letters/purge", json={**purge, "expected": 50}).json() == {"purged": 50}
    assert web.admin("GET", "/dead-letters").json()["count"] == 2
