"""What holds for every test: its settings, the examples that it draws, and where its fixtures are."""

from __future__ import annotations

import os

import hypothesis
import pytest
from pydantic import AliasChoices
from support import rights

from market_data_store.config import Settings

pytest_plugins = [
    "support.fixtures.servers",
    "support.fixtures.store",
    "support.alone",
    "support.browser",
    "support.neighbours",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    help_ = "start each process with its user of docs/least-rights.md, where its servers are the tests' own"
    parser.addoption("--least-rights", action="store_true", help=help_)


def pytest_configure(config: pytest.Config) -> None:
    """Before `market_data_store.app` is imported, which reads them: a developer's own servers are not for tests."""
    for field in Settings.model_fields.values():
        assert isinstance(field.validation_alias, AliasChoices)
        for name in field.validation_alias.choices:
            os.environ.pop(str(name), None)
    if config.getoption("--least-rights"):
        rights.make_them_the_rule()
    # In CI the same examples each time: what a new example finds is found, and mended, before.
    hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
    hypothesis.settings.register_profile("default", deadline=None)
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")
