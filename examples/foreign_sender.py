"""Send bars to the store from a Celery application that does not have this package.

BROKER_URL is the broker of the store; `mds up` prints it. The program prints what became of the rows.
"""

# ruff: noqa: T201  # a script prints

from __future__ import annotations

import os
from typing import Any

from celery import Celery

BARS: list[dict[str, Any]] = [
    {"symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "open": 185.1, "high": 185.4, "low": 185.0, "close": 185.3},
    {"symbol": "AAPL", "ts": "2024-01-02T14:31:00Z", "open": 185.3, "high": 185.6, "low": 185.2, "close": 185.5},
    # A wrong value: the row becomes a dead letter, and the others are written.
    {"symbol": "AAPL", "ts": "2024-01-02T14:32:00Z", "open": 185.5, "high": 185.6, "low": "n/a", "close": 185.2},
]


def application(broker_url: str) -> Celery:
    """A Celery application that can send to the store and read results."""
    # Workers store results in the Redis that is the broker; with RabbitMQ they send them back to who asked.
    on_redis = broker_url.startswith("redis")
    app = Celery("foreign_sender", broker=broker_url, backend=broker_url if on_redis else "rpc://")
    # On RabbitMQ the store's queue is a quorum queue. A client that declares it as another kind is refused.
    app.conf.task_create_missing_queue_type = "quorum"
    return app


def main() -> None:
    """Send the bars in one message, and wait for the result."""
    app = application(os.environ["BROKER_URL"])
    result = app.send_task(
        "store.write",
        args=["bars", BARS],
        kwargs={"defaults": {"provider": "example", "interval": "1m"}},
        queue="store.write",
    )
    print(result.get(timeout=30))


if __name__ == "__main__":
    main()
