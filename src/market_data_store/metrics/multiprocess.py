"""Counts the metrics of several processes as one: each process counts in its own file, and one of them reads all files.

This is prometheus_client's multiprocess mode, with one difference: a file belongs to a slot, not to a process id. The
process that replaces a dead one takes its slot and its file, and goes on counting there. So no count of the dead
process is lost, and there are never more files than there are processes at one time. By process id, every replaced
process would leave files that are kept, and read at every scrape, for ever.
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

from market_data_store.errors import ConfigurationError
from market_data_store.metrics.reserved import ReservedDict

_PREFIX = "mds-metrics-"
#: An unlocked directory of this age belongs to a dead process; a live process locks its directory at once.
_LEFT_BEHIND_S = 60.0

_directory: Path | None = None


def begin(slot: Callable[[], str]) -> None:
    """Make this process and its forks count together until it ends.

    Call it before the metrics are made (before `metrics.definitions` is imported). `slot` returns the slot of the
    process that calls it. No two live processes may have the same slot, and a slot must not contain an underscore.
    Raises `ConfigurationError` if no directory for temporary files can be written.
    """
    global _directory
    try:
        _clear_left_behind()
        _directory = Path(tempfile.mkdtemp(prefix=_PREFIX))  # only its owner can read it
    except OSError as error:  # its own text lists the directories that were tried
        raise ConfigurationError(
            f"metrics of several processes need a directory that can be written: {error.strerror}; set TMPDIR to one"
        ) from error
    fcntl.flock(os.open(_directory, os.O_RDONLY), fcntl.LOCK_EX)  # held until the last of our processes has ended
    atexit.register(_end, _directory, os.getpid())
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_directory)
    # prometheus_client chooses this class when it is imported, and Flower's plugin makes every `celery` command import
    # it early.
    values.MmapedDict = ReservedDict  # type: ignore[attr-defined]
    values.ValueClass = values.MultiProcessValue(slot)  # type: ignore[no-untyped-call]


def served(*more: CollectorRegistry) -> View:
    """Return what a scrape gets: after `begin` the metrics of all processes, else those of this one and of `more`."""
    if _directory is not None:
        return View(_shared)
    return View(lambda: _merged(chain.from_iterable(registry.collect() for registry in (REGISTRY, *more))))


def drop_gauges(slot: str) -> None:
    """Drop the gauges of a process that has ended, as they describe the present; its counters stay."""
    if _directory is not None:
        mark_process_dead(slot, str(_directory))  # type: ignore[no-untyped-call]


class View(CollectorRegistry):
    """A registry of what `collect` yields, for prometheus_client's servers; `name[]` in a scrape selects samples.

    prometheus_client's own selection fails for metrics of several processes, whose names are not known in advance.
    """

    def __init__(self, collect: Callable[[], Iterable[Metric]], names: frozenset[str] | None = None) -> None:
        super().__init__()
        self._collect = collect
        self._names = names

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; if names were selected, only the samples with these names."""
        for metric in self._collect():
            if self._names is not None:
                metric.samples = [sample for sample in metric.samples if sample.name in self._names]
            if self._names is None or metric.samples:
                yield metric

    def restricted_registry(self, names: Iterable[str]) -> View:  # type: ignore[override]
        """Return a view of only the samples with these names."""
        return View(self._collect, frozenset(names))


def _merged(metrics: Iterable[Metric]) -> Iterable[Metric]:
    """Make one metric of those with one name: a scrape must not have a name twice."""
    found: dict[str, Metric] = {}
    for metric in metrics:
        if metric.name in found:
            found[metric.name].samples.extend(metric.samples)
        else:
            found[metric.name] = metric
    return found.values()


def _shared() -> Iterable[Metric]:
    # A file that was just created is still empty and cannot be read.
    files = [str(path) for path in Path(str(_directory)).glob("*.db") if _has_begun(path)]
    merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    return merged


def _has_begun(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # gauges of a process that has ended
        return False


def _end(directory: Path, owner: int) -> None:
    if os.getpid() == owner:  # a fork may run this too
        shutil.rmtree(directory, ignore_errors=True)


def _clear_left_behind() -> None:
    """Remove the directories of processes that were killed; a live process holds a lock on its own directory."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # another user's, or not a directory
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
