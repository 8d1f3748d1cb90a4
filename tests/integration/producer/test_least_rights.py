"""A producer with the rights that docs/least-rights.md gives it in Redis: it sends, and can do nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from support.processes import PYTHON, run

from market_data_store.local import start_valkey
from market_data_store.protocol import QUEUE

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[3] / "docs/least-rights.md"
PROGRAM = """
from market_data_store import StoreClient
with StoreClient(spool="own.db") as client:
    client.write("signals", [{"provider": "p", "symbol": "S", "name": "n", "ts": 1.7e9, "value": 1.0}])
"""
ATTACKS = (
    ("FLUSHALL",),
    ("PUBLISH", "/0.celery.pidbox", "x"),
    ("EVAL", "return 1", "0"),
    ("LRANGE", QUEUE, "0", "1"),
    ("RPOP", QUEUE),
    ("DEL", QUEUE),
    ("HGETALL", "unacked"),
    ("LPUSH", "unacked_malformed", "x"),
    ("SET", "mdp:mds.monitor.store.write", "x"),
    ("XADD", "mdp:mdp.telemetry.feedback", "*", "a", "b"),
    ("KEYS", "*"),
    ("CONFIG", "GET", "*"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("ACL", "LIST"),
)


@pytest.mark.parametrize("more", [[], ["-client|setname"]])
def test_a_producer_with_the_documented_rights_sends_and_can_do_nothing_else(more: list[str], tmp_path: Path) -> None:
    (documented,) = (line for line in DOCUMENT.read_text().splitlines() if line.startswith("ACL SETUSER producer "))
    rights = documented.replace(">...", ">its-own-password").split()
    with start_valkey(tmp_path / "valkey") as server, redis.Redis.from_url(server.url) as owner:
        owner.execute_command(*rights, *more)
        url = server.url.replace("redis://", "redis://producer:its-own-password@")
        sent = run(PYTHON, "-c", PROGRAM, directory=tmp_path, environment={"BROKER_URL": url})
        assert sent.returncode == 0, sent
        assert owner.llen(QUEUE) == 1
        with redis.Redis.from_url(url) as producer:
            for attack in ATTACKS:
                with pytest.raises(redis.exceptions.NoPermissionError):
                    producer.execute_command(*attack)
        assert owner.llen(QUEUE) == 1
