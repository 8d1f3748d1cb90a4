"""Records a command as a run in `job_runs`; if that fails, the command carries on unrecorded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from market_data_store.cli.ending import Ended
from market_data_store.cli.terminal import console
from market_data_store.errors import MarketDataStoreError
from market_data_store.job_tracking import JobRunTracker
from market_data_store.protocol import Counts

#: How often progress is recorded, which also shows that the command is alive.
_INTERVAL_S = 10.0


@contextmanager
def recorded(
    job_name: str,
    dataset_name: str,
    provider: str | None,
    metadata: Mapping[str, Any],
    console: Console = console,
    *,
    fingerprint: str | None = None,
) -> Iterator[Run]:
    """Record the block as a run that ends with the block; yield the run, which takes the counts so far.

    `fingerprint` tells which runs are of the same load. A run without rejected and stale rows is a success. Ctrl-C and
    SIGTERM cancel it. A failure to record is printed once.
    """
    about = {"job_name": job_name, "dataset_name": dataset_name, "provider": provider, "metadata": metadata}
    run = Run(console, config_fingerprint=fingerprint, **about)
    try:
        yield run
    except (KeyboardInterrupt, SystemExit) as error:
        run.end("cancelled", str(error) if isinstance(error, Ended) else "interrupted")
        raise
    except BaseException as error:
        # The text of any other error may contain anything, such as a URL with its password.
        run.end("failure", str(error) if isinstance(error, MarketDataStoreError) else type(error).__name__)
        raise
    numbers = {"dead letters": run.counts.rejected, "stale rows": run.counts.stale}
    wrong = ", ".join(f"{name}: {number:,}" for name, number in numbers.items() if number)
    run.end(*(("failure", wrong) if wrong else ("success", None)))


class Run:
    """A run under way; called with the counts so far."""

    def __init__(self, console: Console, **about: Any) -> None:
        self.counts = self._recorded = Counts()
        self._console = console
        self._due = time.monotonic() + _INTERVAL_S
        self._said = False
        #: Its id in `job_runs`; None if it could not be recorded.
        self.id: int | None = None
        with self._tried():
            self._tracker = JobRunTracker()
            self.id = self._tracker.start_run(mode="backfill", **about)

    def __call__(self, counts: Counts) -> None:
        """Take the counts so far."""
        self.counts = counts
        if self.id is not None and time.monotonic() >= self._due:
            with self._tried():
                self._record(self.id)
            self._due = time.monotonic() + _INTERVAL_S

    def end(self, status: str, error: str | None) -> None:
        """End the run."""
        if self.id is not None:
            with self._tried():
                self._record(self.id)
                self._tracker.complete_run(self.id, status, error)

    def _record(self, run_id: int) -> None:
        now, before = self.counts, self._recorded
        self._tracker.update_progress(
            run_id,
            rows_written=now.written - before.written,
            rows_failed=now.rejected + now.stale - before.rejected - before.stale,
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
