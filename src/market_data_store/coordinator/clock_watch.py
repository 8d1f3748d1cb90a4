"""What the monitor knows of clocks: it keeps how far each is off, and says in the log which of them is wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from market_data_store.causes import Cause
from market_data_store.coordinator.clock_offsets import BROKER, POSTGRES, wrong_clocks
from market_data_store.logs.repeated import Repeated

logger = logging.getLogger(__name__)

_NAMES = {POSTGRES: "postgres", BROKER: "broker"}


class ClockWatch:
    """Gets each clock's offset from those that ask; every thread may read `offsets`."""

    def __init__(self) -> None:
        self._servers: dict[str, float | None] = {}
        self._workers: Mapping[str, float] = {}
        self._trouble = Repeated(logger)

    def see_postgres(self, ahead_s: float | None) -> None:
        """Note by how many seconds Postgres's clock is ahead of this machine's; None if that is not known."""
        self._servers[POSTGRES] = ahead_s

    def see_broker(self, ahead_s: float | None, workers: Mapping[str, float]) -> None:
        """Note the same of the broker, and of the workers by name, and say what is wrong."""
        self._servers[BROKER] = ahead_s
        self._workers = workers
        said = wrong_clocks(self._servers, workers)
        if said:
            self._trouble.happened("; ".join(said), kind="wrong", cause=Cause.CLOCK_WRONG)
        else:
            self._trouble.over("The clocks agree again")

    @property
    def offsets(self) -> dict[str, float]:
        """By how many seconds the clocks are ahead of this machine's; of the workers, that which is off most."""
        found = {_NAMES[name]: seconds for name, seconds in [*self._servers.items()] if seconds is not None}
        return found | ({"workers": max(self._workers.values(), key=abs)} if self._workers else {})
