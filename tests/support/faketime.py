"""Processes whose clock is wrong, by Debian's libfaketime."""

from __future__ import annotations

from pathlib import Path

from support.requirements import missing


def clock_off_by(seconds: float) -> dict[str, str]:
    """The environment of such a process, or the test is `missing` the library. Its monotonic clock is right."""
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
    if library is None:
        missing("libfaketime is not installed; on Debian: apt-get install faketime")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{seconds:+.0f}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }
