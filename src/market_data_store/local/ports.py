"""The ports of `mds up` in one directory: the same from start to start, as long as they are free."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from market_data_store.config import owned_files
from market_data_store.local.host import free_port, is_free
from market_data_store.local.passwords import write_in

_END = 65_536
_HEAD = "# The ports of `mds up` in this directory. Delete a line to let it choose another.\n"


class Ports:
    """The ports by name, such as `postgres`; `say` gets a line for each that is taken and had to be changed."""

    def __init__(self, home: Path, say: Callable[[str], None]) -> None:
        self._home = home
        self._path = home / "ports"
        self._say = say
        found = owned_files.variables(self._path)
        self._known = {name.lower(): int(port) for name, port in found.items() if port.isdigit() and int(port) < _END}

    def port(self, name: str, host: str = "127.0.0.1", *, usual: int = 0) -> int:
        """Return the port that this had, else the usual one, else any; another one if something listens there."""
        before = self._known.get(name, usual)
        port = before if before and is_free(before, host) else free_port()
        if before and port != before:
            self._say(f"Port {before} of {name} is taken: it listens on {port}")
        self._known[name] = port
        return port

    def keep(self) -> None:
        """Keep them for the next start; raises `MarketDataStoreError` if the file cannot be written."""
        text = "".join(f"{name.upper()}={port}\n" for name, port in sorted(self._known.items()))
        write_in(self._home, self._path, _HEAD + text)
