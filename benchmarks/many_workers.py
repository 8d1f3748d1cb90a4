"""One process that answers for many workers: `python -m benchmarks.many_workers 200`, on the broker of BROKER_URL.

It answers the question that web and monitor ask (`active_queues`), once for each worker, in the form of real ones.
"""

from __future__ import annotations

import sys
from typing import Any

from kombu.utils.uuid import uuid

from market_data_store.app import app
from market_data_store.coordinator.counted import BOUNDS, OUTCOMES, key
from market_data_store.datasets import DATASETS
from market_data_store.protocol import ANSWER, LANES

_READY = "answering"
_INSTANCES = [uuid() for _ in range(10_000)]


def main() -> None:
    """Answer until the process is ended."""
    number, turn = int(sys.argv[1]), 0
    with app.connection_for_read() as connection, connection.channel() as channel:
        node = app.control.mailbox.Node("many@benchmark", channel=channel)

        def answer(body: Any, _: Any) -> None:
            nonlocal turn
            reply = body.get("reply_to") if body.get("method") == "active_queues" else None
            if reply is None:
                return
            turn += 1
            for n in range(number):
                said = {f"worker{n:04}@benchmark": _queues(n, turn)}
                node.reply(said, reply["exchange"], reply["routing_key"], ticket=body["ticket"])

        with node.Consumer(channel=channel, callbacks=[answer], no_ack=True):
            print(_READY, flush=True)
            while True:
                connection.drain_events()


def _queues(n: int, turn: int) -> list[dict[str, Any]]:
    counted = {
        key("rows", dataset, outcome): float(turn * 100) for dataset in list(DATASETS)[:3] for outcome in OUTCOMES
    }
    counted |= {key("latency_s", "live", part): float(turn * 7) for part in range(len(BOUNDS["latency_s"]) + 1)}
    said = {
        "held": {},
        "stalled_s": 0.0,
        "settled_s": 0.1,
        "version": "0.5.0",
        "processes": 8,
        "instance": _INSTANCES[n],
        "up_s": 3_600.0 + turn,
        "holds": n % 300,
        "rss_bytes": 400_000_000,
        "counted": counted,
    }
    return [{"name": queue, ANSWER: said} for queue in LANES.values()]


if __name__ == "__main__":
    main()
