"""The passwords that the store makes on this machine, for servers and pages that nobody has given one.

They are in `passwords` in MDS_HOME, for its owner only, and stay the same over restarts.
"""

from __future__ import annotations

import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from market_data_store.config import owned_files
from market_data_store.errors import MarketDataStoreError

#: 256 bits, in characters that need no quoting in URLs, SQL and Valkey's configuration.
_BYTES = 32
_HEAD = "# Made by market-data-store. For its owner only; delete the file, and the next start makes others.\n"
#: Flower's user.
_USER = "mds"


@dataclass(frozen=True, kw_only=True)
class Passwords:
    """What the store has made. `flower` is `user:password`."""

    path: Path
    postgres: str = field(repr=False)
    valkey: str = field(repr=False)
    admin_token: str = field(repr=False)
    flower: str = field(repr=False)


def passwords_in(home: Path) -> Passwords:
    """Return the passwords of this directory; make those that are missing.

    Raises `ConfigurationError` if the file is another user's, `MarketDataStoreError` if it cannot be written.
    """
    path = home / "passwords"
    found = owned_files.variables(path)
    names = ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "ADMIN_TOKEN", "FLOWER_BASIC_AUTH")
    if not all(found.get(name) for name in names):
        made = {name: secrets.token_urlsafe(_BYTES) for name in names}
        made["FLOWER_BASIC_AUTH"] = f"{_USER}:{made['FLOWER_BASIC_AUTH']}"
        found = made | {name: value for name, value in found.items() if value}
        write_in(home, path, _HEAD + "".join(f"{name}={found[name]}\n" for name in names))
    postgres, valkey, admin_token, flower = (found[name] for name in names)
    return Passwords(path=path, postgres=postgres, valkey=valkey, admin_token=admin_token, flower=flower)


def write_in(home: Path, path: Path, text: str) -> None:
    """Write a file for its owner only; raises `MarketDataStoreError` if that cannot be."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.stat().st_mode & stat.S_IWOTH:
            raise MarketDataStoreError(f"others can write in {home.absolute()}; run `chmod go-w` on it")
        owned_files.write_private(path, text)
    except OSError as error:
        raise MarketDataStoreError(
            f"cannot write {path.absolute()}: {error.strerror}; choose another directory with MDS_HOME"
        ) from error
