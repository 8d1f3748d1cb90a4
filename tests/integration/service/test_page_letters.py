"""Letters that are found, corrected, sent again and deleted in the browser; real rows, worker, Redis and Postgres."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg
from celery import Celery
from playwright.sync_api import Page, expect
from support.brokers import on_redis
from support.browser import Watched
from support.waiting import wait_until
from support.web import TOKEN, Web
from support.workers import Worker

GOOD = {"provider": "p", "symbol": "S", "name": "n"}
expect.set_options(timeout=60_000)


def write(redis_url: str, rows: list[dict[str, Any]]) -> None:
    with Celery("producer", broker=redis_url, set_as_current=False) as producer:
        producer.send_task("store.write", args=["signals", rows], queue="store.write")


def give_token(page: Page, token: str) -> None:
    page.get_by_label("ADMIN_TOKEN").fill(token)
    page.get_by_role("button", name="Use it").click()


def open_reason(page: Page, pattern: str) -> None:
    page.locator("#reasons").get_by_role("button", name=pattern).click()
    expect(page.locator("#mend")).to_contain_text(f"pattern {pattern}")


@on_redis
def test_letters_of_three_reasons_are_mended_and_gone(
    web: Web, worker: Worker, watched: Watched, redis_url: str, database: psycopg.Connection[Any]
) -> None:
    database.execute("ALTER TABLE signals ADD CONSTRAINT small CHECK (value < 10)")
    nameless = [{"symbol": f"A{n}", "name": "n", "ts": 1_704_067_200, "value": n} for n in range(3)]
    late = {**GOOD, "symbol": "B", "ts": "never", "value": 4}
    large = {**GOOD, "symbol": "C", "ts": 1_704_067_201, "value": 77}
    write(redis_url, [*nameless, late, large])
    page = watched(web)
    expect(page.locator("#reasons li")).to_have_count(3)

    page.locator("#reasons").get_by_role("button", name="provider").click()
    give_token(page, "wrong-by-one-letter")
    expect(page.locator("#token-wrong")).to_have_text("This token is wrong.")
    give_token(page, TOKEN)
    mend = page.locator("#mend")
    expect(mend.locator("ul").last.locator("li")).to_have_count(3)
    page.get_by_label("Set the field").fill("provider")
    page.get_by_label("of all to").fill("p")
    page.get_by_role("button", name="Set it and send all again").click()
    expect(mend.locator(".said").first).to_have_text("3 sent: 3 gone, 0 refused again.")
    expect(page.locator("#reasons li")).to_have_count(2)

    page.locator("#reasons").get_by_role("button", name="ts").click()
    mend.get_by_role("button", name="letter ").click()
    text = page.get_by_label("Correct `row`, then save")
    expect(text).to_have_value(re.compile("never"))
    broken = text.input_value()
    text.fill(broken.replace('"never"', "never"))
    page.get_by_role("button", name="Save and send again").click()
    expect(mend.locator(".said").last).to_contain_text("change `row` only")
    text.fill(broken.replace('"never"', "1704067202"))
    page.get_by_role("button", name="Save and send again").click()
    expect(mend.locator(".said").first).to_contain_text("is gone: its row is written.")
    expect(page.locator("#reasons li")).to_have_count(1)

    database.execute("ALTER TABLE signals DROP CONSTRAINT small")
    page.locator("#reasons").get_by_role("button", name="Postgres refuses").click()
    expect(mend).to_contain_text("1 letter:")
    page.get_by_role("button", name="Send all again").first.click()
    expect(mend.locator(".said").first).to_have_text("1 sent: 1 gone, 0 refused again.")
    expect(page.locator("#reasons li")).to_have_count(0)
    expect(page.locator("#letters")).to_have_text("0")
    found = database.execute("SELECT provider, symbol, value FROM signals ORDER BY symbol").fetchall()
    assert found == [("p", "A0", 0.0), ("p", "A1", 1.0), ("p", "A2", 2.0), ("p", "B", 4.0), ("p", "C", 77.0)]
    assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
    assert TOKEN not in page.content()
    assert TOKEN not in web.log_text()


@on_redis
def test_letters_are_exported_and_deleted_only_after_a_question(
    web: Web, worker: Worker, watched: Watched, redis_url: str, database: psycopg.Connection[Any], tmp_path: Path
) -> None:
    write(redis_url, [{**GOOD, "ts": "never", "value": 1}, {"symbol": "S", "name": "n", "ts": 1_704_067_200}])
    page = watched(web, viewport={"width": 390, "height": 844})
    expect(page.locator("#reasons li")).to_have_count(2)
    page.get_by_role("button", name="Search and correct letters").click()
    page.keyboard.press("Escape")
    mend = page.locator("#mend")
    expect(mend.locator(".said")).to_have_text("Nothing was done: the admin's token is needed for this.")
    page.get_by_label("Reason has").fill("provider")
    mend.get_by_role("button", name="Search", exact=True).click()
    give_token(page, TOKEN)
    expect(mend).to_contain_text("1 letter: reason provider")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as NDJSON").click()
    download.value.save_as(tmp_path / "letters.ndjson")
    exported = json.loads((tmp_path / "letters.ndjson").read_text())
    assert exported["row"] == {"symbol": "S", "name": "n", "ts": 1_704_067_200}

    page.get_by_role("button", name="Delete all of them ...").click()
    expect(page.get_by_role("dialog")).to_contain_text("Delete 1 letter for good?")
    page.get_by_role("button", name="Cancel").last.click()
    assert web.admin("GET", "/dead-letters").json()["count"] == 2
    page.get_by_role("button", name="Delete all of them ...").click()
    page.get_by_role("button", name="Delete 1 letter", exact=True).click()
    expect(mend.locator(".said").first).to_have_text("1 letter deleted.")
    wait_until(lambda: web.admin("GET", "/dead-letters").json()["count"] == 1, "one is left")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
