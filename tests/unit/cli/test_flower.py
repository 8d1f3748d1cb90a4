"""The environment that Flower gets, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from market_data_store.cli.flower import flower_environment
from market_data_store.config import Settings
from market_data_store.errors import ConfigurationError
from market_data_store.local.passwords import passwords_in


@pytest.fixture(autouse=True)
def no_settings_of_flower_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "ADDRESS", "BASIC_AUTH", "BROKER_API", "MAX_TASKS", "READ_ONLY"):
        monkeypatch.delenv(f"FLOWER_{name}", raising=False)


def given(**values: str) -> Settings:
    return Settings.model_validate(values)


#: Long enough, and not what an example shows.
OWN = "x1-0123456789abcdef"


@pytest.mark.parametrize(
    "pairs",
    ["", "operator:", "o:changeme", "o:Change-Me", "o:<password-of-your-own>", f"o:{OWN},p:", "o:fifteen-letters"],
)
def test_a_placeholder_or_a_short_password_is_refused_in_production(pairs: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FLOWER_BASIC_AUTH .* at least 16 characters.* MDS_ENV=development"):
        flower_environment(given(FLOWER_BASIC_AUTH=pairs))


def test_an_own_password_is_handed_on_and_the_api_asks_for_it() -> None:
    for environment in ("production", "development"):
        made = flower_environment(given(FLOWER_BASIC_AUTH=f"a:{OWN},b:{OWN}", MDS_ENV=environment))
        assert made["FLOWER_BASIC_AUTH"] == f"a:{OWN},b:{OWN}"
        assert "FLOWER_UNAUTHENTICATED_API" not in made
        assert "FLOWER_READ_ONLY" not in made


@pytest.mark.parametrize("pairs", ["", "o:changeme", "o:short"])
def test_in_development_the_store_makes_a_password_and_flower_is_read_only(
    pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "")
    values = {"MDS_ENV": "development", "PORT": "5300", "MDS_HOME": str(tmp_path), "FLOWER_BASIC_AUTH": pairs}
    environment = flower_environment(given(**values))
    assert environment["FLOWER_BASIC_AUTH"] == passwords_in(tmp_path).flower
    assert environment["FLOWER_READ_ONLY"] == "true"
    assert "FLOWER_UNAUTHENTICATED_API" not in environment
    assert (environment["FLOWER_ADDRESS"], environment["FLOWER_PORT"]) == ("127.0.0.1", "5300")


def test_in_development_others_need_a_password_of_the_users_own(tmp_path: Path) -> None:
    values = {"MDS_ENV": "development", "MDS_HOST": "::", "ADMIN_TOKEN": OWN, "MDS_HOME": str(tmp_path)}
    with pytest.raises(ConfigurationError, match="FLOWER_BASIC_AUTH is not"):
        flower_environment(given(**values))
    assert flower_environment(given(**values, FLOWER_BASIC_AUTH=f"o:{OWN}"))["FLOWER_ADDRESS"] == ""


def test_flower_listens_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_PORT", "tcp://10.0.0.7:5555")  # Kubernetes, beside a service `flower`
    auth = {"FLOWER_BASIC_AUTH": f"operator:{OWN}"}

    def place(port: int | None = None, **values: str) -> tuple[str, str]:
        environment = flower_environment(given(**auth, **values), port=port)
        return environment["FLOWER_ADDRESS"], environment["FLOWER_PORT"]

    assert place() == ("127.0.0.1", "5555")
    assert place(PORT="8000") == ("0.0.0.0", "8000")  # noqa: S104
    assert place(7000, PORT="8000", MDS_HOST="::1") == ("::1", "7000")
    assert place(MDS_HOST="::") == ("", "5555")  # Tornado's for both families


@pytest.mark.parametrize("pairs", ["operator", ":x", "o:pässword", "a:x1,b"])
def test_what_flower_cannot_read_is_a_wrong_setting(pairs: str) -> None:
    with pytest.raises(ValueError, match="write user:password in ASCII"):
        given(FLOWER_BASIC_AUTH=pairs)


def test_flowers_own_variables_win_over_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"FLOWER_BASIC_AUTH": f"o:{OWN}", "MDS_RABBITMQ_MANAGEMENT_URL": "http://u:p@h:15672"}
    environment = flower_environment(given(**values))
    assert (environment["FLOWER_MAX_TASKS"], environment["FLOWER_BROKER_API"]) == ("10000", "http://u:p@h:15672/api/")
    monkeypatch.setenv("FLOWER_MAX_TASKS", "7")
    monkeypatch.setenv("FLOWER_BROKER_API", "http://other/api/")
    environment = flower_environment(given(**values))
    assert (environment["FLOWER_MAX_TASKS"], environment["FLOWER_BROKER_API"]) == ("7", "http://other/api/")


@pytest.mark.parametrize(
    ("broker", "management", "api"),
    [
        ("amqp://u:p%2Fq@h//", "http://u:p%2Fq@h:15672", "http://h:15672/api/"),
        ("amqp://u:p@h//", "http://u:p%25+%20q@h:15672/", "http://u:p%+ q@h:15672/api/"),
        ("amqp://u:p@h//", "https://v:p%2Fq@[::1]/rabbitmq", "https://v:p%2Fq@[::1]/rabbitmq/api/"),
        ("amqp://u:p@h//", "http://h:15672", "http://h:15672/api/"),
    ],
)
def test_flower_gets_the_password_of_the_management_api_as_it_reads_it(broker: str, management: str, api: str) -> None:
    values = {"BROKER_URL": broker, "MDS_RABBITMQ_MANAGEMENT_URL": management, "MDS_ENV": "development"}
    assert flower_environment(given(**values))["FLOWER_BROKER_API"] == api
