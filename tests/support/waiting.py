"""Waiting by polling, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_INTERVAL_S = 0.005
_LONGEST_INTERVAL_S = 0.05


def wait_until(condition: Callable[[], T], what: str | Callable[[], str] = "", *, timeout_s: float = 20.0) -> T:
    """Poll the condition and return its first true value; raise `AssertionError` after the deadline.

    `what` completes the error message. Pass a function where the text, such as a log, is still being written.
    """
    deadline, interval_s = time.monotonic() + timeout_s, _FIRST_INTERVAL_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {(what() if callable(what) else what) or condition}")
        time.sleep(interval_s)
        interval_s = min(interval_s * 1.5, _LONGEST_INTERVAL_S)
    return value
