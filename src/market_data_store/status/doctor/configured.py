"""Checks of the settings: every value and name, what is missing, and what is open or closed by them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from market_data_store.config import Settings, checks, settings
from market_data_store.errors import ConfigurationError
from market_data_store.status.doctor.finding import Finding, error, ok, warning

CHECK = "settings.values"
#: Seconds that a job may take to end in an outage of Postgres, see docs/deploy.md.
_OUTAGE_S = 100.0
_NEW_SECRET = "set it to what `openssl rand -hex 32` prints"  # noqa: S105  # says how to make one


def read() -> tuple[Settings | None, list[Finding]]:
    """Read the settings; a finding for each that is wrong, and None then."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = settings()
        except ConfigurationError as wrong:
            return None, [_wrong(line) for line in str(wrong).splitlines()]
    removed = [warning(CHECK, f"{each.message}", "delete it") for each in caught if each.category is FutureWarning]
    return found, removed or [ok(CHECK, f"{len(Settings.model_fields)} settings, of which none is wrong")]


def _wrong(line: str) -> Finding:
    message, separator, remedy = line.partition("; ")
    return error(CHECK, message, remedy if separator else "docs/settings.md lists all settings")


def missing(found: Settings) -> Iterator[Finding]:
    """Yield a finding for each URL that every process needs, whether it is set."""
    for check, require in (
        ("settings.database_url", found.require_database_url),
        ("settings.broker_url", found.require_broker_url),
    ):
        try:
            require()
        except ConfigurationError as unset:
            message, _, remedy = str(unset).partition("; ")
            yield error(check, message, remedy)
        else:
            yield ok(check, "is set")


def secrets(found: Settings) -> Iterator[Finding]:
    """Yield what is closed or open because a secret is missing, and what else contradicts what people expect."""
    # In development, and while `mds up` runs, the store makes them.
    is_local = found.environment == "development" or (found.home / "env").is_file()
    token, flower = "settings.admin_token", "settings.flower_basic_auth"
    if found.own_admin_token or is_local:
        yield ok(token, "the admin endpoints have a token")
    else:
        state = "is a placeholder" if found.admin_token else "is not set"
        yield warning(token, f"ADMIN_TOKEN {state}: the admin endpoints answer 503", _NEW_SECRET)
    if is_local or checks.are_own_logins(found.flower_basic_auth):
        yield ok(flower, "Flower has a password")
    else:
        state = "has a weak password" if found.flower_basic_auth else "is not set"
        yield warning(
            flower,
            f"FLOWER_BASIC_AUTH {state}: Flower does not start",
            f"set it to user:password, with a password of at least {checks.LEAST_SECRET} characters",
        )


def stalled(found: Settings) -> Iterator[Finding]:
    """Judge MDS_EXIT_WHEN_STALLED."""
    check = "settings.exit_when_stalled"
    if 0 < found.exit_when_stalled_s < _OUTAGE_S:
        yield warning(
            check,
            f"MDS_EXIT_WHEN_STALLED={found.exit_when_stalled_s:g}: workers would end in outages of Postgres",
            f"set it to {_OUTAGE_S:.0f} or more, or to 0 for never",
        )
    else:
        yield ok(check, "workers outlive an outage of Postgres")
