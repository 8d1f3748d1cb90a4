"""Sends a workload's messages with `send_task`; the last line of output has the seconds that this took.

BROKER_URL=redis://... python -m benchmarks.peers.produce fresh 100000 500 0 0
"""

from __future__ import annotations

import json
import sys
import time

from celery import Celery

from benchmarks.workloads import Workload

app = Celery("produce")
app.config_from_object("benchmarks.peers.settings")


def main() -> None:
    """Send the messages, and print the seconds."""
    kind, *numbers = sys.argv[1:]
    messages = [[bar.to_json() for bar in message] for message in Workload(kind, *map(int, numbers)).messages()]
    started = time.perf_counter()
    with app.producer_pool.acquire(block=True) as producer:
        for rows in messages:
            # Without `argsrepr`, Celery also writes the rows as text, for events.
            app.send_task("peer.write", args=[rows], producer=producer, argsrepr="", ignore_result=True)
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
