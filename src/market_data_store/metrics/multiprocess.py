"""The metrics of several processes as one: each process counts in a file of its own, one of them reads them all.

That is prometheus_client's multiprocess mode, with one difference: a file belongs to a slot instead of a process id.
The process that takes a dead one's place takes its slot and its file, and counts on from there. So nothing that the
dead one counted is lost, and there are never more files than processes at a time; by process id, each process that is
replaced leaves files that are kept, and read at every scrape, for ever.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Metric, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_PREFIX = "mds-metrics-"
#: Seconds after which a directory that nobody holds is taken for one of the dead; a living one is held after a moment.
_LEFT_BEHIND_S = 60.0

_directory: Path | None = None


def begin(slot: Callable[[], str]) -> None:
    """Have this process and those that it forks count together, until it ends.

    To be called before the metrics are made (before `metrics` is imported). `slot` names the slot of the process that
    calls it: no two living processes may have the same, and no underscore may be in it.
    """
    global _directory
    _clear_left_behind()
    _directory = Path(tempfile.mkdtemp(prefix=_PREFIX))  # for its owner alone
    fcntl.flock(os.open(_directory, os.O_RDONLY), fcntl.LOCK_EX)  # until the last process of ours is gone
    atexit.register(_end, _directory, os.getpid())
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_directory)
    # prometheus_client decides when it is imported, and Flower's plugin has every `celery` command import it early.
    values.ValueClass = values.MultiProcessValue(slot)  # type: ignore[no-untyped-call]


def served(*more: CollectorRegistry) -> View:
    """What a scrape gets: after `begin` the metrics of all processes, else this one's, those of `more` included."""
    if _directory is not None:
        return View(_shared)
    return View(lambda: chain.from_iterable(registry.collect() for registry in (REGISTRY, *more)))


def drop_gauges(slot: str) -> None:
    """What a process that is gone said of the present holds no longer; what it counted stays."""
    if _directory is not None:
        mark_process_dead(slot, str(_directory))  # type: ignore[no-untyped-call]


class View(CollectorRegistry):
    """What `collect` yields, as prometheus_client's servers want it; `name[]` of a scrape picks samples by name.

    prometheus_client's own way of picking fails on metrics of several processes, whose names are not known before.
    """

    def __init__(self, collect: Callable[[], Iterable[Metric]], names: frozenset[str] | None = None) -> None:
        super().__init__()
        self._collect = collect
        self._names = names

    def collect(self) -> Iterator[Metric]:
        """The metrics; of those that were picked, the samples that were picked."""
        for metric in self._collect():
            if self._names is not None:
                metric.samples = [sample for sample in metric.samples if sample.name in self._names]
            if self._names is None or metric.samples:
                yield metric

    def restricted_registry(self, names: Iterable[str]) -> View:  # type: ignore[override]
        """The samples of these names alone."""
        return View(self._collect, frozenset(names))


def _shared() -> Iterable[Metric]:
    # A file that was opened this moment is still empty, and cannot be read.
    files = [str(path) for path in Path(str(_directory)).glob("*.db") if _has_begun(path)]
    merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    return merged


def _has_begun(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # the gauges of a process that is gone
        return False


def _end(directory: Path, owner: int) -> None:
    if os.getpid() == owner:  # a fork may come here too
        shutil.rmtree(directory, ignore_errors=True)


def _clear_left_behind() -> None:
    """Remove the directories of processes that were killed: whoever lives holds its own."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # another user's, or no directory
            continue
        try:
            status = os.fstat(held)
            if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _LEFT_BEHIND_S:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(held)
