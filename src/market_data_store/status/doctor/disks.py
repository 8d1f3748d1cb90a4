"""Judges how much room a disk has."""

from __future__ import annotations

import shutil
from pathlib import Path

from market_data_store.status.doctor.finding import Finding, error, ok, skipped, warning

_GIB = 1024**3
#: Free bytes below which a disk of data is short of room, or full.
SHORT, FULL = _GIB, 100 * 1024**2


def room_in(check: str, path: str | Path, what: str, remedy: str, *, short: int = SHORT, full: int = FULL) -> Finding:
    """Judge the disk that a path is on; `what` begins the sentence."""
    try:
        free = shutil.disk_usage(path).free
    except OSError as failed:
        return skipped(check, f"{path}: {failed.strerror}")
    said = f"{what} has {megabytes(free)} left"
    if free < full:
        return error(check, said, remedy)
    return warning(check, said, remedy) if free < short else ok(check, said)


def megabytes(size: float) -> str:
    """Return a number of bytes for people."""
    return f"{size / 1e6:,.0f} MB" if size < 10e9 else f"{size / 1e9:,.0f} GB"
