"""How `mds` ends after SIGTERM or SIGINT: at once while it is starting, then in order, with one line and its status.

It imports nothing that takes long, because a signal may come at any moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: These commands have no end of their own: a signal is how they are meant to end.
_ENDLESS = frozenset({"up", "monitor", "flower", "top"})
#: Seconds until a signal is raised again that a destructor swallowed.
_AGAIN_S = 0.01


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGINT has come; raised wherever the main thread is.

    A KeyboardInterrupt, because drivers know it: psycopg cancels the statement that is running.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        #: What the command has done, for its last line.
        self.facts = ""
        super().__init__(str(self))

    def __str__(self) -> str:
        return "; ".join(filter(None, [f"ended by {signal.Signals(self.number).name}", self.facts]))


class _Came:
    """The newest signal, also if the exception was lost on its way."""

    number: int | None = None
    #: What heard of errors in destructors before.
    hook: Callable[[sys.UnraisableHookArgs], Any] = sys.__unraisablehook__


def exit_at_once() -> None:
    """Exit at a signal, without a word: for the time in which there is nothing to clean up."""
    _listen(lambda number, _: os._exit(status(number)))


def raise_ended() -> None:
    """Raise `Ended` at a signal, so that what was begun is cleaned up."""
    if sys.unraisablehook is not _raise_again:
        _Came.hook, sys.unraisablehook = sys.unraisablehook, _raise_again
    _listen(_raise)


def came() -> int | None:
    """Return the number of the signal that has come, if any."""
    return _Came.number


def is_cause_of(error: BaseException) -> bool:
    """Whether foreign code made this of `Ended`: a module of C that is being imported raises ImportError."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Ended):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def status(number: int) -> int:
    """Return the exit status after this signal: 143 after SIGTERM, 130 after SIGINT; 0 of a command without an end."""
    return 0 if is_endless() else 128 + number


def is_endless() -> bool:
    """Whether the command runs until it is ended."""
    return not _ENDLESS.isdisjoint(sys.argv[1:2])


def _listen(handler: Callable[[int, FrameType | None], Any]) -> None:
    # SIGINT too: a shell starts background jobs with it ignored.
    for number in _SIGNALS:
        with suppress(ValueError):  # not in the main thread
            signal.signal(number, handler)


def _raise(number: int, _: FrameType | None) -> None:
    _Came.number = number
    raise Ended(number)


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Raise `Ended` a moment later if it came in a destructor or a callback, from which nothing gets out."""
    lost = unraisable.exc_value
    if not isinstance(lost, Ended):
        _Came.hook(unraisable)
        return
    number = lost.number
    signal.signal(signal.SIGALRM, lambda *_: _raise(number, None))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
