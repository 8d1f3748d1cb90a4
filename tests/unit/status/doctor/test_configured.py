"""Which secrets are missing, and where the store makes them itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from market_data_store.config import Settings
from market_data_store.status.doctor import configured

OWN = {"admin_token": "0123456789abcdef", "flower_basic_auth": "operator:0123456789abcdef"}


@pytest.mark.parametrize(
    ("given", "severities"),
    [
        (OWN, ["ok", "ok"]),
        ({}, ["warning", "warning"]),
        ({**OWN, "admin_token": "changeme"}, ["warning", "ok"]),
        ({**OWN, "flower_basic_auth": "operator:short"}, ["ok", "warning"]),
        ({"environment": "development"}, ["ok", "ok"]),
    ],
)
def test_secrets(given: dict[str, str], severities: list[str], tmp_path: Path) -> None:
    settings = Settings().model_copy(update={"home": tmp_path, **given})
    assert [finding.severity for finding in configured.secrets(settings)] == severities
    (tmp_path / "env").touch()  # `mds up` runs
    assert [finding.severity for finding in configured.secrets(settings)] == ["ok", "ok"]
