"""What is stored, on the page: series that are drawn, and a store of 5,000 series, 200 workers and 100,000 letters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, Route, expect
from support.browser import Watched
from support.sharing import Corner
from support.web import TOKEN, Web, serving

from benchmarks import busy_store

#: Where the pictures of docs/status-page.md go, if they are to be renewed: `SCREENSHOTS=docs pytest THIS`.
SCREENSHOTS = os.environ.get("SCREENSHOTS")
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def busy_web(
    corner_at: Callable[[str], Corner], shared_redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Web]:
    servers = {"DATABASE_URL": corner_at(shared_redis_url).database_url, "BROKER_URL": shared_redis_url}
    flower = "https://operator:of-these-tests@flower.example.com/x"
    with serving(tmp_path_factory.mktemp("web"), **servers, MDS_FLOWER_URL=flower) as running:
        yield running


@pytest.fixture
def web(busy_web: Web, redis_url: str, database_url: str) -> Web:
    return busy_web


def give_token(page: Page) -> None:
    page.get_by_label("ADMIN_TOKEN").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()


def with_more(page: Page) -> None:
    """Let the page's JSON say what 200 workers would."""

    def answer(route: Route) -> None:
        found: dict[str, Any] = route.fetch().json()
        route.fulfill(body=json.dumps(busy_store.document(found)), content_type="application/json")

    page.route("**/status.json", answer)


def width(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))


def test_a_series_is_found_and_drawn_with_its_last_rows(
    web: Web, watched: Watched, database: psycopg.Connection[Any]
) -> None:
    busy_store.fill(database, series=60, letters=3)
    page = watched(web)
    datasets = page.locator("#datasets")
    expect(datasets.locator("li").filter(has_text="bars")).to_contain_text("60 series")
    datasets.get_by_role("button", name="bars").click()
    give_token(page)
    series = page.locator("#series")
    expect(series.locator(".choices li")).to_have_count(50)
    expect(series.get_by_role("status")).to_have_text("50 series; there are more, search for one")
    page.get_by_label("Search").first.fill("s0001")
    expect(series.locator(".choices li")).to_have_count(1)
    series.get_by_role("button", name="polygon S0001 1m").click()
    expect(series.get_by_role("img")).to_have_attribute("aria-label", "The newest 300 rows of polygon S0001 1m")
    assert series.locator("path.candles").count() == 2  # those that rise and those that fall
    assert str(series.locator("path.candles.falls").get_attribute("d")).count("z") > 100
    expect(series.locator("table tr")).to_have_count(21)
    expect(series.locator("th").first).to_have_text("provider")

    datasets.get_by_role("button", name="ticks").click()
    series.get_by_role("button", name="binance BTC-USD").click()
    expect(series.locator("path.line")).to_have_count(1)
    expect(page.locator("#links").get_by_role("link", name="Flower")).to_have_attribute(
        "href", "https://flower.example.com/x"
    )
    page.locator("#links").get_by_role("link", name="Documents").click()
    page.get_by_role("link", name="Troubleshooting").click()
    expect(page.get_by_role("heading", name="Troubleshooting")).to_be_visible()


def test_a_large_store_is_usable_on_a_phone(
    web: Web, watched: Watched, database: psycopg.Connection[Any], tmp_path: Path
) -> None:
    busy_store.fill(database)
    page = watched(web, with_more, viewport={"width": 390, "height": 844}, color_scheme="dark")
    expect(page.locator("#letters")).to_have_text("100,000")
    expect(page.locator("#workers-said")).to_have_text("200 workers")
    expect(page.locator("#rows")).not_to_have_text("unknown")
    page.screenshot(path=tmp_path / "status-page-dark.png")
    assert width(page) == 390

    expect(page.locator("#worker-list li").first).to_contain_text("worker017")  # those in trouble come first
    help_ = page.locator("#worker-list").get_by_role("link", name="committed none")
    expect(help_).to_have_attribute("href", "docs/troubleshooting.md#workers-are-in-trouble")
    expect(page.locator("#feeds li").first).to_contain_text("stopped: limit 5 min")
    expect(page.locator("#unknown-fields")).to_contain_text("bars: vwap2")
    page.get_by_role("button", name="Show 200").click()
    page.get_by_role("button", name="Show 100").click()
    expect(page.locator("#worker-list li")).to_have_count(200)
    expect(page.locator("#feeds li")).to_have_count(100)
    expect(page.locator("#plot-rows .area")).to_have_count(4)
    expect(page.locator("#plot-latency .line")).to_have_count(2)
    assert page.locator("#plot .band.hard").count() >= 1

    page.locator("#plots").focus()
    for _ in range(44):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#pointed")).to_contain_text("rejected rows/s; p50")
    expect(page.locator("#pointed")).to_contain_text("waiting, hard")
    page.keyboard.press("Escape")
    expect(page.locator("#pointed")).to_contain_text("Point at a plot")

    page.locator("#datasets").get_by_role("button", name="bars").click()
    give_token(page)
    expect(page.locator("#series .choices li")).to_have_count(50)
    page.get_by_label("Search").first.fill("S4999")
    page.locator("#series").get_by_role("button", name="S4999").click()
    expect(page.locator("#series path.candles").first).to_be_attached()

    page.locator("#reasons").get_by_role("button", name="close: … is not a number").click()
    mend = page.locator("#mend")
    expect(mend).to_contain_text("33,334 letters")
    expect(mend.locator("ul").last.locator("li")).to_have_count(20)
    mend.get_by_role("button", name="Next").click()
    mend.get_by_role("button", name="letter ").last.click()
    expect(mend.locator("dl")).to_contain_text("bars.csv")
    assert width(page) == 390
    assert page.evaluate("document.querySelectorAll('*').length") < 6_000
    # The letters' buttons are large enough to be touched, and each field has a label.
    assert page.evaluate("[...document.querySelectorAll('input, textarea, select')].every((e) => e.labels.length)")

    page = watched(web, with_more, viewport={"width": 1280, "height": 1500}, color_scheme="light")
    expect(page.locator("#worker-list li")).to_have_count(10)
    page.screenshot(path=tmp_path / "status-page-light.png", full_page=True)
    page.locator("#datasets").get_by_role("button", name="bars").click()
    give_token(page)
    page.get_by_label("Search").first.fill("S00")
    page.locator("#series").get_by_role("button", name="S0001").click()
    expect(page.locator("#series path.candles").first).to_be_attached()
    page.locator("#series").screenshot(path=tmp_path / "status-page-series.png")
    for picture in tmp_path.glob("*.png"):
        assert picture.stat().st_size > 20_000
        if SCREENSHOTS:
            (Path(SCREENSHOTS) / picture.name).write_bytes(picture.read_bytes())
