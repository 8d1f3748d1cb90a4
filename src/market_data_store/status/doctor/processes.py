"""Checks of the store's processes and of what they leave: workers, monitor, queues, held datasets, letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from market_data_store.config import Settings
from market_data_store.coordinator.watermarks import HARD, OK
from market_data_store.coordinator.workers import unserved
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE
from market_data_store.status.doctor.family import Family
from market_data_store.status.doctor.finding import Finding, counted, error, ok, skipped, warning
from market_data_store.status.looks import Away, FeedbackStatus, Looks, QueueStatus
from market_data_store.status.sampler import Sample, Sampler

NAME = "processes"
#: A worker that does not tell its version has one before this.
_TELLS = "0.5"


def processes(settings: Settings, see: Callable[[Sample], None]) -> Family[Sample]:
    """Return the checks of one look at everything; `see` gets the look, for those who need more of it."""

    @contextmanager
    def opened() -> Iterator[Sample]:
        sampler = Sampler(settings, log=False)
        try:
            sample = sampler.newest(complete=True)
            see(sample)
            yield sample
        finally:
            sampler.close(timeout_s=0.2)  # a look that hangs ends with this process

    return Family(
        NAME,
        opened,
        "see the checks of the servers",
        {
            "workers": _live,
            "backfill_workers": _backfill,
            "worker_versions": _versions,
            "worker_troubles": _troubles,
            "held": _held,
            "queue": _queue,
            "monitor": lambda sample: _monitor(sample, settings),
            "letters": _letters,
        },
    )


def _live(sample: Sample) -> Iterator[Finding]:
    return _workers(f"{NAME}.workers", sample.looks, QUEUE)


def _backfill(sample: Sample) -> Iterator[Finding]:
    return _workers(f"{NAME}.backfill_workers", sample.looks.of_backfill, BACKFILL_QUEUE)


def _workers(check: str, looks: Looks, queue: str) -> Iterator[Finding]:
    if isinstance(looks.workers, Away):
        yield skipped(check, looks.workers.error)
    elif looks.workers:
        yield ok(check, f"{counted(len(looks.workers), 'worker')} for {queue}: {', '.join(looks.workers)}")
    else:
        waiting = looks.queue.depth if isinstance(looks.queue, QueueStatus) else 0
        what, _, remedy = unserved(queue).partition("; ")
        # History that nobody sends needs no worker.
        judge = error if queue == QUEUE or waiting else warning
        yield judge(check, f"{what}; waiting: {counted(waiting, 'message')}", remedy)


def _versions(sample: Sample) -> Iterator[Finding]:
    check, own = f"{NAME}.worker_versions", version("market-data-store")
    found = Counter(each.version or f"before {_TELLS}" for each in sample.looks.answers)
    if not found:
        yield skipped(check, "no worker answers")
    elif set(found) == {own}:
        yield ok(check, f"every worker has version {own}, as this command")
    else:
        counted = ", ".join(f"{count} of {name}" for name, count in sorted(found.items()))
        yield warning(
            check,
            f"workers have other versions than this command ({own}): {counted}",
            "install one version on every machine (docs/deploy.md, Change the version)",
        )


def _troubles(sample: Sample) -> Iterator[Finding]:
    check, trouble = f"{NAME}.worker_troubles", sample.looks.trouble
    stalled = [line for line in trouble.sentences if line not in map(str, trouble.held)]
    remedy = "see docs/deploy.md, Workers that do not get on, and restart them"
    yield from (error(check, line, remedy) for line in stalled)
    yield from (warning(check, line, remedy) for line in trouble.workers)
    if isinstance(sample.looks.workers, Away):
        yield skipped(check, sample.looks.workers.error)
    elif not (stalled or trouble.workers):
        yield ok(check, "no worker is deaf, stalled or without the store's transport")


def _held(sample: Sample) -> Iterator[Finding]:
    check, held = f"{NAME}.held", sample.looks.trouble.held
    for each in held:
        judge = error if each.reason else warning
        yield judge(check, str(each), "mend the table; see docs/troubleshooting.md, A dataset is held")
    if isinstance(sample.looks.queue, Away):
        yield skipped(check, sample.looks.queue.error)
    elif not held:
        yield ok(check, "no dataset is held")


def _queue(sample: Sample) -> Iterator[Finding]:
    check, look = f"{NAME}.queue", sample.looks.queue
    if isinstance(look, Away):
        yield skipped(check, look.error)
        return
    said = f"waiting: {counted(look.depth, 'message')}; the level is {sample.level}"
    if look.malformed:
        yield warning(
            check,
            f"{look.malformed:,} entries of the queues are not messages",
            "find who writes to the Redis of BROKER_URL (docs/troubleshooting.md)",
        )
    if sample.level.level is HARD:
        yield error(check, said, "see docs/troubleshooting.md, The level is hard")
    elif sample.level.level is not OK:
        yield warning(check, said, "see docs/troubleshooting.md, The level is soft")
    else:
        yield ok(check, said)


def _monitor(sample: Sample, settings: Settings) -> Iterator[Finding]:
    check, look = f"{NAME}.monitor", sample.looks.feedback
    if look is None:
        yield ok(check, "there is no stream of feedback (REDIS_URL, PULSE_ENABLED), so a monitor cannot be seen here")
    elif isinstance(look, Away):
        yield skipped(check, look.error)
    elif look.fresh(sample.ts, settings.feedback_heartbeat_s) is None:
        last = f"; the last event is {sample.ts - look.events[0].ts:,.0f} s old" if look.events else ""
        yield warning(
            check, f"no monitor leads, so producers hear nothing of a full queue{last}", "start `mds monitor`"
        )
    else:
        yield from _receivers(check, look)


def _receivers(check: str, look: FeedbackStatus) -> Iterator[Finding]:
    failing = sorted(receiver for receiver, outcome in look.outcomes.items() if outcome == "failed")
    if failing:
        yield warning(
            check,
            f"feedback cannot be delivered to {', '.join(failing)}",
            "see the monitor's log, and check the URL of the receiver (MDS_FB_HTTP_ENDPOINT)",
        )
    else:
        yield ok(check, f"a monitor leads; its newest event is {look.events[0].level.value}")


def _letters(sample: Sample) -> Iterator[Finding]:
    check, look = f"{NAME}.letters", sample.looks.database
    if isinstance(look, Away):
        yield skipped(check, look.error)
    elif look.dead_letters is None:
        yield skipped(check, "the letters could not be counted in time")
    elif not look.dead_letters:
        yield ok(check, "there are no dead letters")
    else:
        first = f", most of {look.reasons[0].dataset or 'no dataset'}: {look.reasons[0].reason}" if look.reasons else ""
        yield warning(
            check,
            f"in stock: {counted(look.dead_letters, 'dead letter')}{first}",
            "`mds dead-letters list --by-reason`, then replay or purge (docs/dead-letters.md)",
        )


def answers_of(sample: Sample) -> dict[str, Any]:
    """Return what the workers said, for programs."""
    names: Mapping[str, Any] = {
        QUEUE: None if isinstance(sample.looks.workers, Away) else sample.looks.workers,
        BACKFILL_QUEUE: None if isinstance(sample.looks.backfill.workers, Away) else sample.looks.backfill.workers,
    }
    return {"names": names, "answers": sample.looks.answers}
