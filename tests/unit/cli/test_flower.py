"""The environment that Flower gets, and when it is refused."""

from __future__ import annotations

import pytest

from market_data_store.cli.flower import flower_environment
from market_data_store.config import Settings
from market_data_store.errors import ConfigurationError


@pytest.fixture(autouse=True)
def no_settings_of_flower_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "ADDRESS", "BASIC_AUTH", "BROKER_API", "MAX_TASKS", "READ_ONLY"):
        monkeypatch.delenv(f"FLOWER_{name}", raising=False)


def given(**values: str) -> Settings:
    return Settings.model_validate(values)


@pytest.mark.parametrize(
    "pairs", ["", "operator", "operator:", ":x", "o:changeme", "o:Change-Me", "o:<password>", "o:pässword", "o:x1,p:"]
)
def test_a_placeholder_password_is_refused_only_in_production(pairs: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FLOWER_BASIC_AUTH .* MDS_ENV=development"):
        flower_environment(given(FLOWER_BASIC_AUTH=pairs))
    flower_environment(given(FLOWER_BASIC_AUTH=pairs, MDS_ENV="development"))


def test_in_production_the_password_is_handed_on_and_the_api_asks_for_it() -> None:
    environment = flower_environment(given(FLOWER_BASIC_AUTH="a:x1,b:x2"))
    assert environment["FLOWER_BASIC_AUTH"] == "a:x1,b:x2"
    assert "FLOWER_UNAUTHENTICATED_API" not in environment


def test_without_a_password_flower_is_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "")
    environment = flower_environment(given(MDS_ENV="development", PORT="5300"))
    assert "FLOWER_BASIC_AUTH" not in environment
    assert (environment["FLOWER_UNAUTHENTICATED_API"], environment["FLOWER_READ_ONLY"]) == ("true", "true")
    assert (environment["FLOWER_ADDRESS"], environment["FLOWER_PORT"]) == ("127.0.0.1", "5300")


def test_flower_listens_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_PORT", "tcp://10.0.0.7:5555")  # Kubernetes, beside a service `flower`
    auth = {"FLOWER_BASIC_AUTH": "operator:x1"}

    def place(port: int | None = None, **values: str) -> tuple[str, str]:
        environment = flower_environment(given(**auth, **values), port=port)
        return environment["FLOWER_ADDRESS"], environment["FLOWER_PORT"]

    assert place() == ("127.0.0.1", "5555")
    assert place(PORT="8000") == ("0.0.0.0", "8000")  # noqa: S104
    assert place(7000, PORT="8000", MDS_HOST="::1") == ("::1", "7000")


def test_flowers_own_variables_win_over_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"FLOWER_BASIC_AUTH": "o:x1", "MDS_RABBITMQ_MANAGEMENT_URL": "http://u:p@h:15672"}
    environment = flower_environment(given(**values))
    assert (environment["FLOWER_MAX_TASKS"], environment["FLOWER_BROKER_API"]) == ("10000", "http://u:p@h:15672/api/")
    monkeypatch.setenv("FLOWER_MAX_TASKS", "7")
    monkeypatch.setenv("FLOWER_BROKER_API", "http://other/api/")
    environment = flower_environment(given(**values))
    assert (environment["FLOWER_MAX_TASKS"], environment["FLOWER_BROKER_API"]) == ("7", "http://other/api/")
