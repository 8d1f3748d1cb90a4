"""What `mds up` prints of its processes: all that they log, but while they start only what is wrong."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import deque

from market_data_store.cli.terminal import say
from market_data_store.logs import process

logger = logging.getLogger(__name__)

#: How many lines are kept to be shown if the start fails.
_KEPT = 60
#: How a record begins in a text, and where the level is in logfmt; in both it is the first of these words.
_RECORD = re.compile(r"(?:time=)?\d{4}-\d\d-\d\dT\S+ (?:level=)?(\w+)")
_HARMLESS = ("debug", "info")


class Output:
    """Gets the lines of the processes, in threads of their own. `verbose` shows all of them, `quiet` none."""

    def __init__(self, *, verbose: bool = False, quiet: bool = False) -> None:
        self._lock = threading.Lock()
        self._shows_all = verbose
        self._quiet = quiet and not verbose
        self._hidden: deque[tuple[str, str]] = deque(maxlen=_KEPT)
        #: By process, whether its last record was shown, as are the lines below that.
        self._shown: dict[str, bool] = {}

    def __call__(self, name: str, line: str) -> None:
        """Print a line of a process, or keep it."""
        with self._lock:
            level = level_of(line)
            is_harmless = level in _HARMLESS or (line.startswith("  ") and not self._shown.get(name, True))
            self._shown[name] = not is_harmless
            if (is_harmless or self._quiet) and not self._shows_all:
                self._hidden.append((name, line))
                return
        print_line(name, line)

    def ready(self) -> None:
        """Print everything from now on."""
        with self._lock:
            self._shows_all = True
            self._hidden.clear()

    def failed(self) -> None:
        """Print what was kept: the start has failed."""
        with self._lock:
            hidden, self._shows_all = [*self._hidden], True
            self._hidden.clear()
        for name, line in hidden:
            print_line(name, line)


def level_of(line: str) -> str:
    """Return the level of a record in any of the formats; empty for a line that is not a record."""
    found = _RECORD.match(line)
    if found:
        return found[1].lower()
    try:
        return str(json.loads(line)["level"])
    except (ValueError, TypeError, KeyError):
        return ""


def print_line(name: str, line: str) -> None:
    """Print a line of a process's output, after the name of the process; a record for programs as it is."""
    if not process.is_for_programs():
        say(f"{name:>7} | {line}", markup=False)
    elif level_of(line):
        process.write(line)
    elif line.strip():
        logger.warning("%s", line, extra={"by": name})
