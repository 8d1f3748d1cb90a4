"""What a producer's process leaves behind: nothing unsaid, however it ends."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import weakref
from collections.abc import Callable
from typing import Protocol

from market_data_store.errors import BrokerUnavailable, MarketDataStoreError
from market_data_store.producer.messages import Waiting

logger = logging.getLogger(__name__)

#: Seconds in which an exit sends the rows of a client that nobody closed.
_EXIT_TIMEOUT_S = 10.0


class _Outbox(Protocol):
    """What `outbox.Outbox` does."""

    def fill(self) -> None: ...
    def until_taken(self, number: int | None = None, timeout_s: float | None = None) -> bool: ...
    def lost(self) -> BrokerUnavailable: ...
    def stop(self, timeout_s: float) -> None: ...


class _Open:
    """The outboxes that were not stopped, and whether they have a spool, in the process that made them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.outboxes: weakref.WeakKeyDictionary[_Outbox, bool] = weakref.WeakKeyDictionary()


_open = _Open()


def at_exit(outbox: _Outbox, *, has_spool: bool) -> None:
    """Send what is in the outbox when the interpreter ends, unless it is stopped before."""
    if _open.pid != os.getpid():  # a child sends nothing of its parent's
        _open.pid, _open.outboxes = os.getpid(), weakref.WeakKeyDictionary()
    _open.outboxes[outbox] = has_spool


def left(outbox: _Outbox) -> None:
    """Note that the outbox is stopped."""
    _open.outboxes.pop(outbox, None)


def lost(waiting: Waiting, why: Exception | None) -> BrokerUnavailable:
    """Make the error that says which rows are lost."""
    messages = "one message" if len(waiting) == 1 else f"{len(waiting):,} messages"
    lost = f"{waiting.rows:,} rows in {messages} are lost"
    return BrokerUnavailable(f"{lost}: {why or 'they were not sent'}; StoreClient(spool=PATH) would keep them")


def closed_after(error: BaseException | None, close: Callable[[], None]) -> None:
    """Close at the end of a block; what is wrong then does not replace the error that the block has raised."""
    try:
        close()
    except MarketDataStoreError as closing:
        if error is None:
            raise
        logger.error("%s", closing)
        error.add_note(str(closing))


@atexit.register
def _leave() -> None:
    for outbox, has_spool in list(_open.outboxes.items()) if _open.pid == os.getpid() else ():
        try:
            _sent(outbox, has_spool)
        except MarketDataStoreError as error:
            logger.error("%s", error)
            if not logging.getLogger().handlers:  # nobody shows the log, and nobody else says it
                sys.stderr.write(f"market-data-store: {error}\n")


def _sent(outbox: _Outbox, has_spool: bool) -> None:
    """Send what there is; raises `BrokerUnavailable` if rows are lost."""
    try:
        outbox.fill()
        if not has_spool and not outbox.until_taken(timeout_s=_EXIT_TIMEOUT_S):
            raise outbox.lost()
    except BrokerUnavailable as error:
        if not has_spool:
            raise outbox.lost() from error
    finally:
        outbox.stop(timeout_s=1.0)
