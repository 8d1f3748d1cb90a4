"""A setting that was removed is a warning of one line, and not an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from market_data_store import config


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    config.settings.cache_clear()
    yield tmp_path
    config.settings.cache_clear()


EXPECTED = r"^MDS_STOCK_REDIS_TRANSPORT was removed in 0\.5 and has no effect; [^\n]+$"


def test_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDS_STOCK_REDIS_TRANSPORT", "1")
    with pytest.warns(FutureWarning, match=EXPECTED):
        assert config.settings().batch_rows == 5_000


def test_in_a_file(directory: Path) -> None:
    (directory / ".env").write_text("mds_stock_redis_transport=yes\nMDS_BATCH_ROWS=7\n")
    with pytest.warns(FutureWarning, match=EXPECTED):
        assert config.settings().batch_rows == 7


def test_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDS_STOCK_REDIS_TRANSPORT", "1")
    with warnings.catch_warnings(record=True, action="default") as shown:
        for _ in range(3):
            config.settings.cache_clear()
            config.settings()
            config.settings_without_local_servers()
    assert len(shown) == 1
