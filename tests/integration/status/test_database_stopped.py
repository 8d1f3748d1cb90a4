"""Postgres stops: headline, tab and `mds status` say so within five seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.processes import frozen, mds
from support.waiting import wait_until
from support.web import serving

from market_data_store.local import free_port, start_postgres
from market_data_store.postgres import schema

TEXT = "not ready: Postgres does not answer; messages wait in the queue, nothing is lost"
STATE, CAUSE = TEXT.split(": ", 1)
LIMIT_S = 5.0
#: Other work on the machine only adds to what `mds status` takes.
TRIES = 3


def seconds_until(page: Page, state: str) -> float:
    started = time.monotonic()
    expect(page.locator("#level-name")).to_have_text(state, timeout=30_000)
    return time.monotonic() - started


def status_s(directory: Path, environment: dict[str, str]) -> float:
    """How long `mds status` takes to say it, from its start to its end."""
    started = time.monotonic()
    done = mds(directory, "status", **environment)
    assert done.stdout.splitlines()[0] == f"status        {TEXT}", done
    assert done.returncode == 1
    return time.monotonic() - started


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("how", ["frozen", "shut down"])
def test_page_tab_and_status_say_it(how: str, redis_url: str, chromium: Browser, tmp_path: Path) -> None:
    port = free_port()
    data = tmp_path / "data"

    def measure(page: Page) -> None:
        on_page = seconds_until(page, STATE)
        expect(page.locator("#level-words")).to_have_text(CAUSE)
        expect(page).to_have_title(f"{TEXT} – market-data-store")
        assert on_page < LIMIT_S
        assert min(status_s(tmp_path, environment) for _ in range(TRIES)) < LIMIT_S

    with start_postgres(data, port=port) as server:
        schema.upgrade(server.url)
        environment = {"DATABASE_URL": server.url, "BROKER_URL": redis_url, "REDIS_URL": redis_url}
    with serving(tmp_path, **environment) as web:
        page = chromium.new_page()
        try:
            with start_postgres(data, port=port) as server:
                wait_until(lambda: web.client.get("/readyz").status_code == 200, timeout_s=30)
                page.goto(web.url)
                seconds_until(page, "degraded")  # there is no worker
                if how == "frozen":
                    with frozen(server.pid):
                        measure(page)
            if how == "shut down":
                measure(page)
        finally:
            page.close()
        said = web.log_text()
        assert "Traceback" not in said
        # Once for each outage: it was away when the page started, perhaps, and it is now.
        assert 1 <= said.count("Postgres does not answer") <= 2
