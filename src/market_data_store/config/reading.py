"""Reads the settings: the only module that reads the environment.

Variables can also be in a `.env` file of the working directory. While `mds up` runs, `.mds/env` names its servers, so
that other commands in that directory need no variables. Neither is read if another user could have written it. What is
wrong raises `ConfigurationError` with one line each.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import AliasChoices, ValidationError

from market_data_store.config import checks, owned_files
from market_data_store.config.declarations import declared_names
from market_data_store.config.variables import GIVEN, Settings, names
from market_data_store.errors import ConfigurationError


@cache
def settings() -> Settings:
    """The settings of this process, read once; raises `ConfigurationError` that names each wrong variable."""
    return _read(settings_without_local_servers().home / "env")


def settings_without_local_servers() -> Settings:
    """The settings without the servers of a running `mds up`, which itself decides by these."""
    return _read()


def log_settings() -> tuple[str, str]:
    """MDS_LOG_FORMAT and MDS_LOG_LEVEL as they are given, right or wrong; `settings` says what is wrong with them.

    A process logs before it has read its settings: what is wrong with those is in its log.
    """
    try:
        given = _given(None)
    except ConfigurationError:  # a `.env` that is not to be trusted
        given = _own()
    return given.get("MDS_LOG_FORMAT", ""), given.get("MDS_LOG_LEVEL", "")


def _read(local_servers: Path | None = None) -> Settings:
    given = _given(local_servers)
    wrong = [*checks.unknown(given, [*names(), *checks.REMOVED])]
    reading = GIVEN.set(given)
    try:
        found = Settings()
    except ValidationError as error:
        lines = (_wrong_value(each, given) for each in error.errors())
        wrong += {line.partition(":")[0]: line for line in lines}.values()  # one for a variable of two fields
    else:
        wrong += checks.contradictions(found.model_dump(), lambda: declared_names(found.datasets))
    finally:
        GIVEN.reset(reading)
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    for warning in checks.removed(given):
        warnings.warn(warning, FutureWarning, stacklevel=1)  # Python shows the first one of this category by default
    return found


def _given(local_servers: Path | None) -> dict[str, str]:
    """All variables, their names in capitals as pydantic-settings compares them; later ones win, unless empty."""
    local = owned_files.variables(local_servers) if local_servers else {}
    found = {name: local[name] for name in ("DATABASE_URL", "BROKER_URL") if local.get(name)} | owned_files.variables(
        Path(".env")
    )
    return found | {name: value for name, value in _own().items() if value or name not in found}


def _own() -> dict[str, str]:
    return {name.upper(): value for name, value in os.environ.items()}


def _wrong_value(error: Any, given: Mapping[str, str]) -> str:
    name, *inner = map(str, error["loc"])
    is_shown = False  # a URL may contain a password
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices) and alias.choices[0] == name:
            is_shown = field.repr
            # pydantic names the first alias; name the one that is set.
            name = next((str(choice) for choice in alias.choices if given.get(str(choice)) == error["input"]), name)
    value = "".join(f" {key}" for key in inner) + (f"={error['input']!r}" if is_shown else "")
    reason = str(error["msg"]).removeprefix("Value error, ")
    return f"{name}{value}: {reason[:1].lower()}{reason[1:]}"


def undo_celerys_broker_option() -> None:
    """Let the settings decide, which complete the URL.

    The command `celery` takes BROKER_URL for its option `--broker` and would use it as it is spelled.
    """
    if os.environ.get("CELERY_BROKER_URL") == os.environ.get("BROKER_URL"):
        os.environ.pop("CELERY_BROKER_URL", None)


class Traces(NamedTuple):
    """How OpenTelemetry's variables ask for traces; what else they say, its packages read themselves."""

    #: `otlp` or `console`.
    exporter: str
    #: Where the spans go, for messages; empty if the packages decide.
    endpoint: str


#: The only protocol whose exporter the extra `traces` installs.
_OTLP_PROTOCOL = "http/protobuf"
_OTLP_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_{}", "OTEL_EXPORTER_OTLP_{}")


def traces() -> Traces | None:
    """Return how this process shall trace; None if OTEL_TRACES_EXPORTER and the endpoints of OTLP are not set.

    Raises `ConfigurationError` for an exporter or a protocol that is not there. A `.env` file does not count:
    OpenTelemetry reads none.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    exporter, endpoint = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower(), _otlp("ENDPOINT")
    if exporter == "none" or not (exporter or endpoint):
        return None
    if exporter not in ("", "otlp", "console"):
        raise ConfigurationError(f"OTEL_TRACES_EXPORTER={exporter!r}: use otlp, console or none")
    protocol = _otlp("PROTOCOL") or _OTLP_PROTOCOL
    if exporter != "console" and protocol != _OTLP_PROTOCOL:
        raise ConfigurationError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r}: use {_OTLP_PROTOCOL}")
    return Traces(exporter or "otlp", endpoint)


def _otlp(name: str) -> str:
    return next(filter(None, (os.environ.get(form.format(name), "").strip() for form in _OTLP_VARIABLES)), "")
