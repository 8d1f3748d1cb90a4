"""The faults that can happen to a `ledger_world.World`, and a schedule of them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from itertools import islice
from typing import NamedTuple

import psutil

from support.ledger_producer import VALUES
from support.ledger_world import World
from support.owner import TROUBLES
from support.waiting import wait_until
from support.workers import Worker

_TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
#: So many sessions end at least, and at most, one a second.
_TERMINATIONS = (3, 12)


class Step(NamedTuple):
    """What happens at once: a table gets into trouble, and while it is, a process or a server has a fault."""

    dataset: str
    trouble: str | None
    fault: str | None

    @property
    def faults(self) -> list[str]:
        """The names of both."""
        return [name for name in (self.trouble, self.fault) if name is not None]


def schedule(chance: random.Random, faults: int, *, can_deploy: bool) -> list[Step]:
    """Draw so many faults: each kind that can happen here comes once before any comes again."""
    possible = [name for name in FAULTS if name != EARLIER_VERSION or can_deploy]
    troubles, others = _dealt(chance, [*TROUBLES]), _dealt(chance, possible)
    steps: list[Step] = []
    while (left := faults - sum(len(step.faults) for step in steps)) > 0:
        with_trouble = chance.random() < 0.6
        with_fault = not with_trouble or (left > 1 and chance.random() < 0.8)
        fault = next(others) if with_fault else None
        # To version 0.4 what is wrong with a table is wrong with the rows.
        trouble = next(troubles) if with_trouble and fault != EARLIER_VERSION else None
        steps.append(Step(chance.choice([*VALUES]), trouble, fault))
    return steps


def hosted_schedule(chance: random.Random, faults: int, *, can_deploy: bool) -> list[Step]:
    """Draw so many of what a host does: it fails over, restarts its broker, and deploys another version."""
    possible = [name for name in HOSTED if name != EARLIER_VERSION or can_deploy]
    return [Step(chance.choice([*VALUES]), None, fault) for fault in islice(_dealt(chance, possible), faults)]


def befall(world: World, step: Step, chance: random.Random) -> None:
    """Let this happen, and return when rows of all datasets are written again."""
    with world.in_trouble(step.dataset, TROUBLES[step.trouble]) if step.trouble else nullcontext():
        if step.fault:
            FAULTS[step.fault](world, chance)
    world.recover()


def _dealt(chance: random.Random, names: list[str]) -> Iterator[str]:
    while True:
        yield from chance.sample(names, len(names))


def _pool_process(worker: Worker, chance: random.Random) -> list[psutil.Process]:
    pids = sorted(worker.pool_pids)
    return [psutil.Process(chance.choice(pids))] if pids else []


def _pool_process_killed(world: World, chance: random.Random) -> None:
    for process in _pool_process(chance.choice(world.workers), chance):
        process.kill()


def _pool_process_stopped(world: World, chance: random.Random) -> None:
    _pause(_pool_process(chance.choice(world.workers), chance), chance)


def _worker_killed(world: World, chance: random.Random) -> None:
    worker = chance.choice(world.workers)
    worker.container.kill()
    worker.restart()


def _worker_stopped(world: World, chance: random.Random) -> None:
    parent = psutil.Process(chance.choice(world.workers).pid)
    _pause([parent, *parent.children()], chance)


def _worker_restarted(world: World, chance: random.Random) -> None:
    worker = chance.choice(world.workers)
    worker.stop()
    worker.restart()


def _earlier_version_deployed(world: World, chance: random.Random) -> None:
    """A worker of version 0.4 takes the place of one for some seconds, and writes."""
    worker = chance.choice(world.workers)
    worker.stop()
    with world.earlier_worker() as earlier:
        world.until_written()
        _wait(chance.uniform(2.0, 8.0))
        earlier.stop()
    worker.restart()


def _monitor_killed(world: World, _: random.Random) -> None:
    world.monitor.kill()
    world.monitor.start()


def _producer_killed(world: World, chance: random.Random) -> None:
    name, producer = chance.choice([*world.producers.items()])
    producer.kill()
    before = world.accepted()[name]
    producer.start()
    # Until it writes, SIGTERM would end it without what its spool holds.
    wait_until(lambda: world.accepted()[name] != before, producer.said, timeout_s=60)


def _postgres_killed(world: World, _: random.Random) -> None:
    os.kill(world.postgres.pid, signal.SIGKILL)
    world.postgres.stop()
    world.start_postgres()


def _postgres_stopped(world: World, chance: random.Random) -> None:
    server = psutil.Process(world.postgres.pid)
    _pause([server, *server.children()], chance)


def _postgres_restarted(world: World, _: random.Random) -> None:
    world.postgres.stop()
    world.start_postgres()


def _sessions_terminated_each_second(world: World, chance: random.Random) -> None:
    """All of Postgres's sessions, the pooler's and any other."""
    for _ in range(chance.randint(*_TERMINATIONS)):
        world.ask(_TERMINATE)
        _wait(1.0)


def _pooler_killed(world: World, chance: random.Random) -> None:
    world.pooler.kill()
    _wait(chance.uniform(0.0, 3.0))
    world.pooler.start()


def _pooler_restarted(world: World, chance: random.Random) -> None:
    world.pooler.stop()
    _wait(chance.uniform(0.0, 3.0))
    world.pooler.start()


def _broker_killed(world: World, _: random.Random) -> None:
    world.broker.kill()
    world.broker.start()


def _broker_takes_no_writes(world: World, chance: random.Random) -> None:
    """A Redis is read-only, the node of a RabbitMQ is restarted, or Sentinel has another master."""
    with world.broker.taking_no_writes():
        _wait(chance.uniform(1.0, 6.0))


def _broker_stopped(world: World, chance: random.Random) -> None:
    _pause([psutil.Process(world.broker.pid)], chance)


def _broker_restarted(world: World, _: random.Random) -> None:
    world.broker.stop()
    world.broker.start()


def _pause(processes: list[psutil.Process], chance: random.Random) -> None:
    """Freeze processes without their knowledge: SIGSTOP, then SIGCONT."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a backend whose client went
            process.suspend()
    _wait(chance.uniform(0.5, 4.0))
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # one that was resumed may end another
            process.resume()


def _wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end)


#: The one that needs a repository with the commit of version 0.4.
EARLIER_VERSION = "earlier version deployed"
HOSTED = ("broker takes no writes", "broker restarted", EARLIER_VERSION)
FAULTS: dict[str, Callable[[World, random.Random], None]] = {
    fault.__name__.removeprefix("_").replace("_", " "): fault
    for fault in (
        _pool_process_killed,
        _pool_process_stopped,
        _worker_killed,
        _worker_stopped,
        _worker_restarted,
        _earlier_version_deployed,
        _monitor_killed,
        _producer_killed,
        _postgres_killed,
        _postgres_stopped,
        _postgres_restarted,
        _sessions_terminated_each_second,
        _pooler_killed,
        _pooler_restarted,
        _broker_killed,
        _broker_takes_no_writes,
        _broker_stopped,
        _broker_restarted,
    )
}
