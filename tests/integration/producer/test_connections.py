"""How many connections a StoreClient holds at its broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from celery import Celery
from support.fixtures.store import Bar

from market_data_store import StoreClient


def connections(broker_url: str) -> int:
    port = urlsplit(broker_url).port
    sockets = psutil.Process().net_connections("tcp")
    return sum(s.status == psutil.CONN_ESTABLISHED and bool(s.raddr) and s.raddr.port == port for s in sockets)


@pytest.mark.parametrize("broker_url", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize(
    "options",
    [{}, {"spool": "spool.db"}, {"spool": "spool.db", "on_pressure": "spool"}, {"confirm": True}],
    ids=["memory", "spool", "spooled pressure", "with results"],
)
def test_one_connection_to_rabbitmq_sends_and_reads_the_depth_and_the_results(
    options: dict[str, Any], producer: Celery, broker_url: str, bars: list[Bar], tmp_path: Path
) -> None:
    if "spool" in options:
        options = {**options, "spool": tmp_path / options["spool"]}
    with StoreClient(app=producer, max_rows=10, **options) as client:
        for start in range(0, 100, 20):
            client.write("bars", bars[start : start + 20])
            client.flush()
        assert connections(broker_url) == 1
    assert connections(broker_url) == 0
