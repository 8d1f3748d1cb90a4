"""Every setting has values that are refused; unknown names and contradictions are refused as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.wrong_settings import CONTRADICTIONS, UNKNOWN, WRONG

from market_data_store import config
from market_data_store.config import Settings
from market_data_store.config.checks import DATASET_NAMES
from market_data_store.datasets.catalogue import BUILT_IN
from market_data_store.errors import ConfigurationError

Lines = Callable[..., list[str]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lines]:
    """What is wrong with these variables, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def wrong_with(**variables: str) -> list[str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        config.settings.cache_clear()
        try:
            config.settings()
        except ConfigurationError as error:
            return str(error).splitlines()
        finally:
            for name in variables:
                monkeypatch.delenv(name)
        return []

    yield wrong_with
    config.settings.cache_clear()


#: The variables whose values may hold a secret.
SECRET = [
    *(name for name in WRONG if name.endswith("URL")),
    *("MDS_SENTINEL_PASSWORD", "ADMIN_TOKEN", "MDS_STATUS_TOKEN", "FLOWER_BASIC_AUTH", "MDS_FB_HTTP_ENDPOINT"),
]


def variables() -> list[str]:
    names = (field.validation_alias.choices for field in Settings.model_fields.values())  # type: ignore[union-attr]
    return sorted({str(name) for choices in names for name in choices})


def test_there_is_a_wrong_value_for_every_variable() -> None:
    assert sorted(WRONG) == variables()


@pytest.mark.parametrize(("name", "value"), WRONG.items())
def test_a_wrong_value_is_one_line_that_names_the_variable(lines: Lines, name: str, value: str) -> None:
    (line,) = lines(**{name: value})
    assert line.startswith((f"{name}=", f"{name}: ", f"{name} "))


def test_all_wrong_values_are_named_at_once(lines: Lines) -> None:
    shown = lines(**WRONG)
    # Of the variables that name the broker the first wins, and the others are not looked at.
    hidden = {"CLOUDAMQP_URL", "REDIS_URL"}
    assert [line for line in shown if not line.startswith(tuple(WRONG))] == []
    assert {name for name in WRONG if any(line.startswith(name) for line in shown)} >= WRONG.keys() - hidden


@pytest.mark.parametrize("name", SECRET)
def test_a_value_that_may_hold_a_secret_is_not_shown(lines: Lines, name: str) -> None:
    (line,) = lines(**{name: WRONG[name]})
    assert "s3cret" in WRONG[name]
    assert "s3cret" not in line


@pytest.mark.parametrize(("name", "nearest"), UNKNOWN.items())
def test_an_unknown_name_is_one_line_with_the_nearest_known_one(lines: Lines, name: str, nearest: str | None) -> None:
    (line,) = lines(**{name: "s3cret"})
    hint = f"did you mean {nearest}?" if nearest else "delete it; docs/settings.md lists all settings"
    assert line == f"{name}: is not a setting; {hint}"


def test_a_name_is_compared_as_settings_are_without_case(lines: Lines) -> None:
    assert lines(mds_batch_row="1") == ["MDS_BATCH_ROW: is not a setting; did you mean MDS_BATCH_ROWS?"]
    assert lines(mds_batch_rows="1") == []


def test_the_file_is_checked_too(lines: Lines) -> None:
    Path(".env").write_text("MDS_BATCH_ROW=1\nMDS_BATCH_ROWS=0\nREDIS_URL=sqs://s3cret\nUNRELATED=1\n")
    assert lines() == [
        "MDS_BATCH_ROW: is not a setting; did you mean MDS_BATCH_ROWS?",
        "REDIS_URL: is not a redis://, rediss://, sentinel:// or sentinels:// URL",
        "MDS_BATCH_ROWS='0': input should be greater than or equal to 1",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MDS_SERVICE_HOST", "10.0.0.1"),
        ("MDS_WEB_SERVICE_PORT", "8081"),
        ("MDS_WEB_SERVICE_PORT_HTTP", "8081"),
        ("MDS_WEB_PORT", "tcp://10.0.0.1:8081"),
        ("MDS_WEB_PORT_8081_TCP", "tcp://10.0.0.1:8081"),
        ("MDS_WEB_PORT_8081_TCP_PROTO", "tcp"),
        ("MDS_WEB_PORT_8081_TCP_ADDR", "10.0.0.1"),
        ("MD_OTHER", "1"),
        ("MDSX", "1"),
    ],
)
def test_what_kubernetes_sets_and_names_of_others_are_left_alone(lines: Lines, name: str, value: str) -> None:
    assert lines(**{name: value}) == []


#: The same setting cannot be wrong in two ways at once, as those of `CONTRADICTIONS` are.
ANOTHER = (
    {"MDS_FRESHNESS": "bars:*:fut=5m"},
    "MDS_FRESHNESS: 'fut' is not a group of symbols; declare it in MDS_SYMBOL_GROUPS",
)


@pytest.mark.parametrize(("given", "said"), [*CONTRADICTIONS, ANOTHER])
def test_values_that_cannot_work_together_are_one_line(lines: Lines, given: dict[str, str], said: str) -> None:
    (line,) = lines(**given)
    assert line.startswith(said)


@pytest.mark.parametrize(
    "given",
    [
        {"MDS_VISIBILITY_TIMEOUT_S": "5", "MDS_RETRY_DEADLINE_S": "30"},
        {"MDS_WORKER_METRICS_PORT": "0", "MDS_MONITOR_METRICS_PORT": "0"},
        {"MDS_WORKER_METRICS_PORT": "9101", "MDS_MONITOR_METRICS_PORT": "9101"},  # perhaps on two machines
        {"MDS_SOFT_ABOVE": "0.8", "MDS_HARD_FROM": "0.8"},
        {"MDS_FB_ENABLE_HTTP_BROADCAST": "true", "MDS_FB_HTTP_ENDPOINT": "http://h/x"},
        {"MDS_RETENTION_DAYS": ",".join(f"{name}=1" for name in DATASET_NAMES)},
        {"MDS_HOST": "::"},
        {"MDS_HOST": "[::1]"},
        {"MDS_HOST": "web.internal"},
    ],
)
def test_unusual_values_that_work_are_taken(lines: Lines, given: dict[str, str]) -> None:
    assert lines(**given) == []


def test_the_names_of_the_datasets_are_those_of_the_catalogue() -> None:
    assert set(DATASET_NAMES) == BUILT_IN.keys()
