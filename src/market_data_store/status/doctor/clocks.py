"""Compares a server's clock with this machine's."""

from __future__ import annotations

from collections.abc import Iterator

from market_data_store.coordinator.clock_offsets import SMALL_S
from market_data_store.status.doctor.finding import Finding, error, ok, warning

#: Seconds from which on the newest of two rows may be the wrong one.
_LARGE_S = 60.0
_REMEDY = "let both machines ask a time server (chrony, systemd-timesyncd)"


def clock_of(check: str, server: str, ahead_s: float) -> Iterator[Finding]:
    """Judge by how many seconds the server's clock is ahead of this machine's; negative if it is behind."""
    way = "ahead of" if ahead_s > 0 else "behind"
    said = f"the clock of {server} is {abs(ahead_s):.0f} s {way} this machine's"
    if abs(ahead_s) > _LARGE_S:
        yield error(check, f"{said}: which of two rows is newer may be judged wrongly", _REMEDY)
    elif abs(ahead_s) > SMALL_S:
        yield warning(check, said, _REMEDY)
    else:
        yield ok(check, f"the clocks of {server} and of this machine agree")
