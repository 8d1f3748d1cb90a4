"""`mds release-held`: gives what workers have set aside, and what waits in the lane of history, to the queue of live
rows, so that version 0.4 can write it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import closing

import click

from market_data_store.app import app
from market_data_store.cli.choosing import NameOf
from market_data_store.cli.ending import Ended
from market_data_store.cli.terminal import console, progress
from market_data_store.config import settings
from market_data_store.coordinator.queue import QueueInspector, holdable
from market_data_store.coordinator.workers import Workers
from market_data_store.protocol import BACKFILL_QUEUE, LANES, QUEUE, again_queue, held_queue
from market_data_store.transport.releasing import release, releaser_of


@click.command("release-held")
@click.argument("datasets", metavar="[DATASET]...", nargs=-1, type=NameOf(holdable))
@click.option("--dry-run", is_flag=True, help="Only count the messages.")
@click.option("--json", "as_json", is_flag=True, help="Print one object for programs.")
def command(datasets: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Give the messages that workers have set aside, and those of history, to the queue store.write.

    Use it before you go back to version 0.4, which reads no other queue: first stop the workers of this version, which
    would set messages aside again, and who sends history. Without a name, the messages of all datasets are given back,
    those that need a dead letter (dead_letters), those that run one at a time, and those that wait in store.backfill.
    With names, only those that wait for these datasets' tables. Nothing is deleted, and the command may be ended at any
    time and run again. Its exit status is 1 if messages are left.

    \b
    mds release-held --dry-run
    mds release-held
    mds release-held bars
    """
    settings().require_broker_url()
    chosen = [held_queue(name, queue) for queue in LANES.values() for name in datasets or holdable()]
    if not datasets:
        chosen += [*map(again_queue, LANES.values()), BACKFILL_QUEUE]
    with closing(QueueInspector(app, QUEUE)) as inspector:
        waiting = _waiting(inspector, chosen)
        workers = _workers_of_this_version(inspector)
        if workers and not as_json:
            click.echo(
                f"workers of this version run ({workers}) and may set messages aside again: stop them first",
                err=True,
            )
        released, taken = _released(waiting, chosen, dry_run=dry_run, quiet=as_json)
        left = waiting if dry_run else _waiting(inspector, chosen)
    if as_json:
        found = {"released": released, "left": left, "taken": taken, "workers": workers, "dry_run": dry_run}
        click.echo(json.dumps(found))
    else:
        _say(released, left, taken, dry_run)
    sys.exit(0 if dry_run or not (left or taken) else 1)


def _released(
    waiting: dict[str, int], chosen: list[str], *, dry_run: bool, quiet: bool
) -> tuple[Counter[str], Counter[str]]:
    """Release them; returns by queue how many were moved, and how many workers have or had."""
    released: Counter[str] = Counter()
    total = sum(waiting.values())
    with releaser_of(app) as releaser:
        if waiting and not dry_run:
            with progress(console) as show:

                def on_released(moved: Counter[str]) -> None:
                    released.update(moved)
                    if not quiet:
                        show(released.total(), total, f"{released.total():,} of {total:,} messages")

                try:
                    release(releaser, waiting, on_released)
                except Ended as end:
                    end.facts = f"{released.total():,} messages were given back; run it again to go on"
                    raise
        return released, releaser.taken(chosen)


def _waiting(inspector: QueueInspector, chosen: list[str]) -> dict[str, int]:
    found = inspector.set_aside(QUEUE) | inspector.set_aside(BACKFILL_QUEUE)
    if BACKFILL_QUEUE in chosen:
        found[BACKFILL_QUEUE] = inspector.waiting(BACKFILL_QUEUE)
    return {queue: found[queue] for queue in chosen if found.get(queue)}


def _workers_of_this_version(inspector: QueueInspector) -> int:
    Workers(inspector, BACKFILL_QUEUE).by_queue()
    return len(inspector.answers)


def _say(released: Counter[str], left: dict[str, int], taken: Counter[str], dry_run: bool) -> None:
    for queue, count in released.items():
        console.print(f"given back: {count:,} of {queue}")
    if not released and not left and not taken:
        console.print("nothing is set aside")
    for queue, count in left.items():
        console.print(f"{'waiting' if dry_run else 'left'}: {count:,} in {queue}")
    for queue, count in taken.items():
        console.print(
            f"taken: {count:,} of {queue}, by a worker that runs or was killed; what killed workers had, a worker of "
            f"any version puts back after {settings().visibility_timeout_s} s (MDS_VISIBILITY_TIMEOUT_S): run this "
            "again then"
        )
