"""Delivers events to one receiver at that receiver's pace, so that a slow one delays nobody.

Between the loop and a receiver stands a place for one event: a newer one replaces what still waits there. What could
not be delivered is tried again until it is, or until something newer has come.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from market_data_store.coordinator.feedback import FeedbackEvent

logger = logging.getLogger(__name__)

#: Between tries, in seconds: doubled up to the second.
_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 2.0


class Delivery:
    """One receiver's place and thread; `put` never waits.

    `send` delivers or raises. `on_outcome` is told of each try: the receiver's name, and whether it worked.
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
        self._failing = False
        self._thread = threading.Thread(target=self._run, name=f"feedback-{name}", daemon=True)
        self._thread.start()

    def put(self, event: FeedbackEvent) -> None:
        """Have this event delivered, instead of any that still waits."""
        with self._changed:
            self._waiting = event
            self._changed.notify()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Deliver what waits, if that is quick, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._stopping)
                event, self._waiting = self._waiting, None
                if event is None:
                    return
            if self._delivered(event):
                delay_s = _FIRST_DELAY_S
                continue
            with self._changed:
                if self._stopping:
                    return
                self._changed.wait(delay_s)
                # A newer one has the place; else this one goes back to it.
                self._waiting = self._waiting or event
            delay_s = min(delay_s * 2, _MAX_DELAY_S)

    def _delivered(self, event: FeedbackEvent) -> bool:
        try:
            self._send(event)
        except Exception as error:  # noqa: BLE001  # a receiver raises what its driver raises; the next try follows
            if not self._failing:
                logger.warning("Feedback does not reach %s (%s); trying on", self.name, type(error).__name__)
            self._failing = True
            self._on_outcome(self.name, False)
            return False
        if self._failing:
            logger.info("Feedback reaches %s again", self.name)
        self._failing = False
        self._on_outcome(self.name, True)
        return True
