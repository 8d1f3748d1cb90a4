"""How a process begins: with its log; and how it ends if its settings are wrong.

Then it says one line each, has the exit status 2, and no traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from market_data_store.config.reading import log_settings
from market_data_store.errors import ConfigurationError
from market_data_store.logs.process import begin

#: The exit status of a process whose settings are wrong; a shell's and click's for wrong usage.
WRONG_SETTINGS = 2


def report(error: ConfigurationError) -> str:
    """Return the lines that people see, one for each thing that is wrong."""
    return "\n".join(f"error: {line}" for line in str(error).splitlines())


def begin_log(process: str) -> None:
    """Begin the log of this process, in the format and from the level that the settings name."""
    begin(process, *log_settings())


@contextmanager
def exit_on_wrong_settings() -> Iterator[None]:
    """End the process when the block raises a `ConfigurationError`."""
    try:
        yield
    except ConfigurationError as error:
        sys.stderr.write(report(error) + "\n")
        raise SystemExit(WRONG_SETTINGS) from None
