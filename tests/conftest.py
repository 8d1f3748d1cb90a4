"""What holds for every test: its settings, the examples that it draws, and where its fixtures are."""

from __future__ import annotations

import os

import hypothesis
from pydantic import AliasChoices

from market_data_store.config import Settings

pytest_plugins = [
    "support.fixtures.servers",
    "support.fixtures.store",
    "support.alone",
    "support.browser",
    "support.neighbours",
]


def pytest_configure() -> None:
    """Before `market_data_store.app` is imported, which reads them: a developer's own servers are not for tests."""
    for field in Settings.model_fields.values():
        assert isinstance(field.validation_alias, AliasChoices)
        for name in field.validation_alias.choices:
            os.environ.pop(str(name), None)
    # In CI the same examples each time: what a new example finds is found, and mended, before.
    hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
    hypothesis.settings.register_profile("default", deadline=None)
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")
