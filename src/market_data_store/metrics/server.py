"""Serves the metrics of processes that are not web servers: a worker, from its parent process, and the monitor."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIServer

from celery.signals import worker_process_init
from prometheus_client import CollectorRegistry, start_http_server

from market_data_store.config import settings
from market_data_store.connections.addresses import own_url, with_port
from market_data_store.metrics import multiprocess

logger = logging.getLogger(__name__)


class MetricsServer:
    """Serves `GET /metrics` from a thread, on a port of MDS_HOST (default 127.0.0.1), between `start` and `stop`.

    If it cannot listen on the port, it logs one warning, and the process does its work without it.
    """

    def __init__(self, port: int, variable: str, registry: CollectorRegistry) -> None:
        self._host = settings().host or "127.0.0.1"
        self._port = port
        self._variable = variable
        self._registry = registry
        self._server: WSGIServer | None = None

    def start(self) -> None:
        """Start to listen."""
        try:
            self._server, _ = start_http_server(self._port, self._host, self._registry)
        except OSError as error:
            logger.warning(
                "No metrics are served: cannot listen on %s (%s); give each process on a machine its own %s",
                with_port(self._host, self._port),
                error.strerror,
                self._variable,
            )
        else:
            worker_process_init.connect(self._let_go, weak=False)
            logger.info("Serving metrics on %s/metrics", own_url(self._host, self._port))

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _let_go(self, **_: Any) -> None:
        # A pool process that is forked now inherits the socket, and would hold the port if it outlived its parent.
        if self._server is not None:
            self._server.socket.close()


@contextmanager
def monitor_metrics(*more: CollectorRegistry) -> Iterator[None]:
    """Serve this process's metrics and `more` on MDS_MONITOR_METRICS_PORT during the block, if that is set."""
    port = settings().monitor_metrics_port
    if not port:
        yield
        return
    server = MetricsServer(port, "MDS_MONITOR_METRICS_PORT", multiprocess.served(*more))
    server.start()
    try:
        yield
    finally:
        server.stop()
