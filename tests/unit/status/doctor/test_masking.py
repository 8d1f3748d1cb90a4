"""The settings without their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from market_data_store.config import Settings, settings
from market_data_store.status.doctor.masking import masked, secrets_of, without_secrets

GIVEN = {
    "DATABASE_URL": "postgresql://me:p%40ss%2Fword@h:5432/d?sslpassword=of-the-key",
    "BROKER_URL": "sentinel://:of-redis@h1:26379/0;sentinel://h2:26379",
    "MDS_SENTINEL_MASTER": "mymaster",
    "MDS_SENTINEL_PASSWORD": "of-sentinel",
    "ADMIN_TOKEN": "0123456789abcdef",
    "FLOWER_BASIC_AUTH": "one:password-of-the-first,two:password-of-the-second",
    "MDS_FB_HTTP_ENDPOINT": "https://hooks.example.com/T0/B0/xyz",
    "MDS_RETENTION_DAYS": "ticks=30",
}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Settings]:
    monkeypatch.chdir(tmp_path)
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield settings()
    settings.cache_clear()


def test_a_setting_is_shown_unless_it_may_hold_a_secret(given: Settings) -> None:
    shown = masked(given)
    assert shown["DATABASE_URL"] == "postgresql://***@h:5432/d"
    assert shown["BROKER_URL or CLOUDAMQP_URL or REDIS_TLS_URL or REDIS_URL"].startswith("sentinel://***@h1:26379/0;")
    assert (shown["ADMIN_TOKEN"], shown["MDS_FB_HTTP_ENDPOINT"], shown["MDS_STATUS_TOKEN"]) == ("***", "***", "")
    assert (shown["MDS_SENTINEL_MASTER"], shown["MDS_BATCH_ROWS"]) == ("mymaster", 5_000)
    assert shown["MDS_RETENTION_DAYS"] == {"ticks": 30}
    assert len(shown) == len(Settings.model_fields)


def test_every_spelling_of_a_secret_is_removed_from_texts(given: Settings) -> None:
    texts = [
        *("p@ss/word", "p%40ss%2Fword", "of-the-key", "of-redis", "of-sentinel", "0123456789abcdef"),
        *("password-of-the-first", "password-of-the-second", "/T0/B0/xyz"),
    ]
    assert without_secrets(texts, secrets_of(given)) == ["***"] * len(texts)
    content = {"a 0123456789abcdef": [{"b": "say of-redis twice, of-redis"}], "n": 1, "none": None}
    assert without_secrets(content, secrets_of(given)) == {
        "a ***": [{"b": "say *** twice, ***"}],
        "n": 1,
        "none": None,
    }
