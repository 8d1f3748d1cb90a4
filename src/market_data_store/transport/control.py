"""Celery's remote control, which asks over the connection of whoever asks.

Celery's own takes a second one from its pool to send the question.
"""

from __future__ import annotations

from typing import Any

from celery.app.control import Control


class StoreControl(Control):
    """`Celery(control=...)`: questions to workers, and their answers."""

    def __init__(self, app: Any = None) -> None:
        super().__init__(app)
        self.mailbox.producer_pool = None

    def _after_fork(self) -> None:
        """Keep it so in a new process."""
