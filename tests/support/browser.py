"""A real Chromium for tests that look at pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.requirements import missing

CHROMIUM = Path("/usr/bin/chromium")


# Not for the whole session: while playwright runs, its event loop counts as this thread's running one, and
# `asyncio.run` fails in every other test. A module's fixtures end with it.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    if not CHROMIUM.exists():
        missing(f"{CHROMIUM} is missing; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        arguments = ["--headless=new", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield browser
        browser.close()


class Served(Protocol):
    """What serves the page."""

    url: str


Watched = Callable[..., Page]


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Watched]:
    """Open status pages, with `before(page)` first; what they complain of and ask other hosts for fails the test."""
    complaints: list[str] = []

    def open_page(server: Served, before: Callable[[Page], None] = lambda _: None, **options: Any) -> Page:
        page = chromium.new_context(**options).new_page()
        before(page)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((server.url, "blob:")) else complaints.append(r.url))
        page.goto(server.url)
        expect(page.locator("#shown")).to_have_attribute("aria-busy", "false")
        return page

    yield open_page
    for context in chromium.contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    # While the server is away, and of what it refuses, the browser itself says so.
    assert [each for each in complaints if "ERR_CONNECTION" not in each and "a status of 4" not in each] == []
