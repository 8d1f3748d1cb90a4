"""In which order a channel takes messages from the queues that it consumes."""

from __future__ import annotations

from collections.abc import Callable

from kombu.utils.scheduling import round_robin_cycle

from market_data_store.protocol import LANES

_PLACES = {queue: place for place, queue in enumerate(LANES.values())}


class LiveFirst(round_robin_cycle):
    """kombu's round robin, with the queues of the lanes before all others, and only queues with room."""

    def __init__(self, has_room: Callable[[str], bool]) -> None:
        super().__init__()
        self._has_room = has_room

    def consume(self, n: int) -> list[str]:
        """Return at most so many queues, the first to take from first."""
        queues = sorted(super().consume(n), key=lambda queue: _PLACES.get(queue, len(_PLACES)))
        return [queue for queue in queues if self._has_room(queue)]
