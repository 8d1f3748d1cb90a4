"""Bounds the memory of a pool process, so that a message costs its own turn and not the machine.

What a message may become is bounded before it does (`wire.sizes`, `wire.arrow_sizes`); this is for what nobody has
thought of. A message that meets the bound gets another turn, alone, and becomes a dead letter like one that takes its
process down.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

from celery.signals import worker_process_init

from market_data_store.config import settings

#: Where Linux says how much private memory a process has; other systems have no bound of it.
_STATUS = Path("/proc/self/status")


@worker_process_init.connect(weak=False)
def bound_memory(**options: Any) -> None:
    """Let allocations fail that exceed what this process has now by MDS_POOL_MEMORY_BYTES."""
    allowed = settings().pool_memory_bytes
    has = _data_bytes() if allowed else None
    if has is None:
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = has + allowed
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _data_bytes() -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    sizes = (line.split() for line in lines if line.startswith("VmData:"))
    return next((int(kilobytes) * 1024 for _, kilobytes, _ in sizes), None)
