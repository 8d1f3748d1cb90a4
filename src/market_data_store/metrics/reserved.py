"""Files of counts whose space is reserved, so that a full disk costs counts and nothing else.

prometheus_client maps sparse files into memory. A page that gets no space when it is first written ends the process
with SIGBUS: a worker's pool would die at each message, and the messages would become dead letters.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

logger = logging.getLogger(__name__)

#: What a file has from its beginning; as prometheus_client's, of which ours use a third.
_BYTES = 1 << 16


class ReservedDict(MmapedDict):
    """prometheus_client's file of counts with its space reserved; in memory only, which nobody reads, if there is none.

    It is prometheus_client's own file on systems that reserve no space (macOS).
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if read_mode or not hasattr(os, "posix_fallocate"):
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
            return
        with Path(filename).open("ab") as file:
            has_space = _reserve(file.fileno(), max(_BYTES, file.tell()), filename)
        if has_space:
            super().__init__(filename)  # type: ignore[no-untyped-call]
            return
        memory = os.memfd_create("metrics")
        try:
            super().__init__(f"/proc/self/fd/{memory}")  # type: ignore[no-untyped-call]
        finally:
            os.close(memory)

    def _init_value(self, key: str) -> None:
        # An entry has the key, a length, up to 8 bytes of padding, the value and its time.
        grows = self._used + len(key.encode()) + 32 > self._capacity and hasattr(os, "posix_fallocate")
        if grows and not _reserve(self._f.fileno(), 2 * self._capacity, self._f.name):
            memory = os.fdopen(os.memfd_create("metrics"), "r+b")
            memory.write(self._m[:])
            memory.flush()
            self._f.close()
            self._f = memory
        super()._init_value(key)  # type: ignore[no-untyped-call]


def _reserve(file: int, size: int, name: object) -> bool:
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        logger.warning("Some counts of this process are not served: %s: %s (TMPDIR)", name, error.strerror)
        return False
    return True
