"""Which clocks differ, and by how much: those of the servers and of the workers, beside this machine's. Pure.

One clock that differs from two others that agree is the wrong one, so this machine's own may be. A worker is asked
together with all others and has a second for its answer, so its clock is only known to within that second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median

#: Seconds by which clocks may differ: an answer may take as long.
SMALL_S = 2.0
#: An answer that took longer says nothing of the clock.
_SLOW_S = 1.0
#: The most workers that are named.
_MOST = 3

POSTGRES, BROKER = "Postgres", "the broker"


def ahead_s(ask: Callable[[], float]) -> float | None:
    """Return by how many seconds a server's clock is ahead of this machine's; None if its answer took too long.

    `ask` returns the server's time, in epoch seconds; this raises what it raises.
    """
    began = time.time()
    answer = ask()
    ended = time.time()
    return None if ended - began > _SLOW_S else answer - (began + ended) / 2


def wrong_clocks(servers: Mapping[str, float | None], workers: Mapping[str, float]) -> list[str]:
    """Return what is wrong, each in one line, given by how many seconds each clock is ahead of this machine's."""
    known = {name: seconds for name, seconds in servers.items() if seconds is not None}
    own = own_offset(known)
    said = []
    if own:
        others = " and of ".join(known)
        said.append(f"the clock of this machine is {_way(-own, f'those of {others}')}")
    else:
        said += [f"the clock of {name} is {_way(off, 'that of this machine')}" for name, off in _off(known)]
    late = [*_off({name: seconds - own for name, seconds in workers.items()})]
    said += [f"the clock of the worker {name} is {_way(off, 'the others')}" for name, off in late[:_MOST]]
    more = len(late) - _MOST
    if more > 0:
        said.append(f"and {more} more worker{'s' if more > 1 else ''} differ")
    return said


def own_offset(servers: Mapping[str, float]) -> float:
    """Return by how many seconds two or more servers that agree are ahead of this machine; 0 if they are not."""
    found = [*servers.values()]
    if len(found) < 2 or max(found) - min(found) > SMALL_S or min(map(abs, found)) <= SMALL_S:
        return 0.0
    return median(found)


def _off(clocks: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    return ((name, seconds) for name, seconds in sorted(clocks.items()) if abs(seconds) > SMALL_S)


def _way(seconds: float, of: str) -> str:
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} {of}"
