"""How long to wait between tries. It neither sleeps nor reads a clock: the caller does, in its own way."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays(first_s: float, max_s: float, *, jitter: float = 0.5) -> Iterator[float]:
    """Yield seconds without end, from `first_s` on, doubled up to `max_s`.

    Each is shortened at random by up to the share `jitter`, so that processes that failed together do not try again in
    step.
    """
    delay_s = min(first_s, max_s)
    while True:
        yield delay_s * random.uniform(1.0 - jitter, 1.0)  # noqa: S311  # no secret
        delay_s = min(delay_s * 2, max_s)
