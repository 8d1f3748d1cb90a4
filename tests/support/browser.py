"""A real Chromium for tests that look at pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

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
