"""Delivers events to one receiver at its own pace, so that a slow receiver delays neither the loop nor the others.

Each receiver has a mailbox for one event; a newer event replaces one that is not yet delivered. A failed delivery is
retried until it succeeds, or until a newer event arrives.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from market_data_store.coordinator.backoff import delays
from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.logs.repeated import Repeated

logger = logging.getLogger(__name__)

#: Seconds between tries, see `delays`.
_FIRST_DELAY_S, _MAX_DELAY_S = 0.1, 2.0
#: Seconds until a trouble is said again: the monitor itself says that its broker is away.
_SAID_AGAIN_S = 120.0


class Delivery:
    """One receiver's mailbox and thread; `put` never waits.

    `send` delivers or raises. `on_outcome` is called after each try with the receiver's name and whether it succeeded.
    """

    def __init__(
        self, name: str, send: Callable[[FeedbackEvent], None], on_outcome: Callable[[str, bool], None] | None = None
    ) -> None:
        self.name = name
        self._send = send
        self._on_outcome = on_outcome or (lambda *_: None)
        self._waiting: FeedbackEvent | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._trouble = Repeated(logger, first_s=_SAID_AGAIN_S)
        self._thread = threading.Thread(target=self._run, name=f"feedback-{name}", daemon=True)
        self._thread.start()

    def put(self, event: FeedbackEvent) -> None:
        """Deliver this event, and drop one that still waits."""
        with self._changed:
            self._waiting = event
            self._changed.notify()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Deliver an event that still waits and end, within `timeout_s`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        pauses = delays(_FIRST_DELAY_S, _MAX_DELAY_S)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._stopping)
                event, self._waiting = self._waiting, None
                if event is None:
                    return
            if self._delivered(event):
                pauses = delays(_FIRST_DELAY_S, _MAX_DELAY_S)
                continue
            with self._changed:
                if self._stopping:
                    return
                self._changed.wait(next(pauses))
                # Put it back, unless a newer event has arrived.
                self._waiting = self._waiting or event

    def _delivered(self, event: FeedbackEvent) -> bool:
        try:
            self._send(event)
        except Exception as error:  # noqa: BLE001  # a receiver raises whatever its driver raises; it is retried
            kind = type(error).__name__
            self._trouble.happened(f"Could not deliver feedback to {self.name} ({kind}); retrying", kind="away")
            self._on_outcome(self.name, False)
            return False
        self._trouble.over(f"Feedback is delivered to {self.name} again")
        self._on_outcome(self.name, True)
        return True
