"""The settings without their secrets, and texts from which every known secret is removed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import AliasChoices

from market_data_store.config import Settings, owned_files
from market_data_store.connections.urls import hosts_of, without_password
from market_data_store.errors import ConfigurationError

_MASK = "***"
#: A shorter text is likely to be in other words.
_SHORTEST = 4
#: The parts of a URL's query that are secrets.
_SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)


def masked(settings: Settings) -> dict[str, Any]:
    """Return every setting by its variable: of a URL only the server, of a secret only that it is set."""
    found: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = " or ".join(map(str, alias.choices)) if isinstance(alias, AliasChoices) else name
        value = getattr(settings, name)
        if not field.repr and value:
            # The path of an endpoint of somebody's may be a secret as well.
            value = without_password(value) if name.endswith("_url") else _MASK
        found[variable] = value if isinstance(value, str | int | float | bool) else _text(value)
    return found


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): each for key, each in value.items()}
    return [*map(str, value)] if isinstance(value, tuple) else str(value)


def without_secrets(content: Any, secrets: list[str]) -> Any:
    """Return the content of a JSON document in whose texts and names each of these secrets is replaced."""
    if isinstance(content, str):
        for secret in secrets:
            content = content.replace(secret, _MASK)
        return content
    if isinstance(content, dict):
        return {without_secrets(name, secrets): without_secrets(value, secrets) for name, value in content.items()}
    return [without_secrets(each, secrets) for each in content] if isinstance(content, list) else content


def secrets_of(settings: Settings) -> list[str]:
    """Return every secret of the settings and of `passwords` in MDS_HOME, plain and encoded, the longest first."""
    found = {
        spelling
        for secret in {*_in_settings(settings), *_in_files(settings.home)}
        for spelling in (secret, unquote(secret), quote(unquote(secret), safe=""))
        if len(spelling) >= _SHORTEST
    }
    return sorted(found, key=len, reverse=True)


def _in_settings(settings: Settings) -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if field.repr or not isinstance(value, str) or not value:
            continue
        if "://" not in value:
            yield from _of_pairs(value)
            continue
        for url in hosts_of(value):
            parts = urlsplit(url)
            yield parts.netloc.rpartition("@")[0].partition(":")[2]
            yield from (secret for key, secret in parse_qsl(parts.query) if _SECRET.search(key))
            if name == "http_endpoint":
                yield parts.path + (f"?{parts.query}" if parts.query else "")


def _in_files(home: Path) -> Iterator[str]:
    try:
        made = owned_files.variables(home / "passwords")
    except ConfigurationError:
        return
    for value in made.values():
        yield from _of_pairs(value)


def _of_pairs(value: str) -> Iterator[str]:
    """Yield a secret whole and, of pairs of user and password, each password."""
    yield value
    for pair in value.split(","):
        yield pair.partition(":")[2]
