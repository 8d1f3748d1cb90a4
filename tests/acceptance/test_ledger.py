"""Everything is killed, stopped, restarted and altered in a random order while rows come in, and the ledger is right.

Workers write through PgBouncer in transaction mode. At the end every row that a producer's `write` accepted is stored
with the newest value of its key, or is one that the table refuses and a dead letter. There is no other row and no other
letter.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ledger_faults import EARLIER_VERSION, Step, befall, hosted_schedule, schedule
from support.ledger_world import World
from support.requirements import require_pgbouncer, require_rabbitmq
from support.version_0_4_0 import Version040

#: With this, 20 faults have `MUST_HAPPEN` among them.
SEED = 850
MUST_HAPPEN = {
    "pool process killed",
    "worker killed",
    "worker restarted",
    EARLIER_VERSION,
    "sessions terminated each second",
    "pooler restarted",
    "broker restarted",
    "broker takes no writes",
    "table locked",
    "column renamed",
    "check that nothing fulfils",
    "right revoked",
    "altered to numeric",
    "altered to bigint",
}


@pytest.fixture(params=["redis", "rabbitmq", "sentinel"])
def world(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[World]:
    require_pgbouncer()
    if request.param == "rabbitmq":
        require_rabbitmq()
    world = World(request.param, tmp_path, redis_url)
    yield world
    world.end()


def live_through(world: World, steps: list[Step], chance: random.Random) -> None:
    """All of these steps; then everything is stored, and the letters are those of the rows that the table refuses."""
    world.begin()
    for step in steps:
        befall(world, step, chance)
    world.settle()
    letters, refused = world.letters(), world.refused()
    assert letters.keys() == refused.keys()
    # A row was refused once for each time that it was given to `write`, at most.
    assert letters <= refused


def run(world: World, steps: list[Step], chance: random.Random) -> None:
    """Live through them, and print what docs/reliability.md has (shown with -s)."""
    happened = Counter(name for step in steps for name in step.faults)
    try:
        live_through(world, steps, chance)
    except BaseException as error:
        error.add_note(f"seed {SEED}, step {len(world.recoveries)} of {dict(enumerate(steps))}")
        raise
    left_out = "" if can_deploy(world) else f"; without {EARLIER_VERSION!r}, which needs its commit and no sentinels"
    sys.stdout.write(
        f"\n{happened.total()} faults: {dict(happened)}{left_out}\nrows accepted {world.accepted()}, lost 0\n"
        f"dead letters {world.letters().total()}, all expected\nlongest recovery {max(world.recoveries):.1f} s\n"
    )


def can_deploy(world: World) -> bool:
    """Whether a worker of an earlier version can take part."""
    return world.broker.kind != "sentinel" and Version040.can_be_built()


@pytest.mark.parametrize(
    "faults", [pytest.param(20, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.soak)]
)
def test_whatever_happens_the_ledger_is_right(world: World, faults: int) -> None:
    chance = random.Random(SEED)  # noqa: S311  # no secret
    steps = schedule(chance, faults, can_deploy=can_deploy(world))
    happened = Counter(name for step in steps for name in step.faults)
    assert happened.total() == faults
    assert happened.keys() >= (MUST_HAPPEN if can_deploy(world) else MUST_HAPPEN - {EARLIER_VERSION})
    run(world, steps, chance)


@pytest.mark.soak
def test_whatever_a_host_does_the_ledger_is_right(world: World) -> None:
    chance = random.Random(SEED)  # noqa: S311  # no secret
    run(world, hosted_schedule(chance, 40, can_deploy=can_deploy(world)), chance)
