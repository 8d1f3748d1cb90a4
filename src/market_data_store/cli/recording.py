"""Records a command as a run in `job_runs`; if that fails, the command carries on unrecorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from market_data_store.cli.terminal import console
from market_data_store.errors import MarketDataStoreError
from market_data_store.job_tracking import JobRunTracker
from market_data_store.protocol import Counts

#: How often progress is recorded, which also shows that the command is alive.
_INTERVAL_S = 10.0


@contextmanager
def recorded(
    job_name: str, dataset_name: str, provider: str | None, metadata: Mapping[str, Any], console: Console = console
) -> Iterator[Callable[[Counts], None]]:
    """Record the block as a run that ends with the block; yield a function that takes the counts so far.

    A run without rejects is a success. Ctrl-C and SIGTERM cancel it. A failure to record is printed once.
    """
    run = _Run(console, job_name=job_name, dataset_name=dataset_name, provider=provider, metadata=metadata)
    try:
        yield run.report
    except (KeyboardInterrupt, SystemExit):
        run.end("cancelled", "interrupted")
        raise
    except BaseException as error:
        # The text of any other error may contain anything, such as a URL with its password.
        run.end("failure", str(error) if isinstance(error, MarketDataStoreError) else type(error).__name__)
        raise
    rejected = run.counts.rejected
    run.end(*(("failure", f"dead letters: {rejected:,}") if rejected else ("success", None)))


class _Run:
    def __init__(self, console: Console, **about: Any) -> None:
        self.counts = self._recorded = Counts()
        self._console = console
        self._due = time.monotonic() + _INTERVAL_S
        self._said = False
        self._id: int | None = None
        with self._tried():
            self._tracker = JobRunTracker()
            self._id = self._tracker.start_run(mode="backfill", **about)

    def report(self, counts: Counts) -> None:
        self.counts = counts
        if self._id is not None and time.monotonic() >= self._due:
            with self._tried():
                self._record(self._id)
            self._due = time.monotonic() + _INTERVAL_S

    def end(self, status: str, error: str | None) -> None:
        if self._id is not None:
            with self._tried():
                self._record(self._id)
                self._tracker.complete_run(self._id, status, error)

    def _record(self, run_id: int) -> None:
        now, before = self.counts, self._recorded
        self._tracker.update_progress(
            run_id,
            rows_written=now.written - before.written,
            rows_failed=now.rejected - before.rejected,
            rows_processed=now.rows,
        )
        self._recorded = now

    @contextmanager
    def _tried(self) -> Iterator[None]:
        try:
            yield
        except MarketDataStoreError as error:
            if not self._said:
                self._console.print(f"not recorded in job_runs: {error}", markup=False, soft_wrap=True)
            self._said = True
