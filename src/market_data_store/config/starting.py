"""How a process ends that was started with wrong settings: one line each, exit status 2, and no traceback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from market_data_store.errors import ConfigurationError

#: The exit status of a process whose settings are wrong; a shell's and click's for wrong usage.
WRONG_SETTINGS = 2


def report(error: ConfigurationError) -> str:
    """Return the lines that people see, one for each thing that is wrong."""
    return "\n".join(f"error: {line}" for line in str(error).splitlines())


def silence_http_clients() -> None:
    """Log nothing of what the HTTP clients say below a warning, whatever level is asked for.

    httpx logs the URL of each request, and httpcore the headers of the answers, which may repeat it: they hold what a
    URL of the settings holds.
    """
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def exit_on_wrong_settings() -> Iterator[None]:
    """End the process when the block raises a `ConfigurationError`."""
    try:
        yield
    except ConfigurationError as error:
        sys.stderr.write(report(error) + "\n")
        raise SystemExit(WRONG_SETTINGS) from None
