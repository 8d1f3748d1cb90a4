"""Serves the metrics of processes that are no web servers: a worker, from its parent process, and the monitor."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIServer

from celery.signals import worker_process_init
from prometheus_client import CollectorRegistry, start_http_server

from market_data_store.config import settings
from market_data_store.metrics import multiprocess

logger = logging.getLogger(__name__)


class MetricsServer:
    """`GET /metrics` on a port of MDS_HOST (127.0.0.1) from a thread, while it is started.

    A port that cannot be had is one warning: the process does its work all the same.
    """

    def __init__(self, port: int, variable: str, registry: CollectorRegistry) -> None:
        self._host = settings().host or "127.0.0.1"
        self._port = port
        self._variable = variable
        self._registry = registry
        self._server: WSGIServer | None = None

    def start(self) -> None:
        """Listen."""
        try:
            self._server, _ = start_http_server(self._port, self._host, self._registry)
        except OSError as error:
            logger.warning(
                "No metrics are served: %s:%d cannot be listened on (%s); give each process of a machine its own %s",
                self._host,
                self._port,
                error.strerror,
                self._variable,
            )
        else:
            worker_process_init.connect(self._let_go, weak=False)
            logger.info("Metrics are served on http://%s:%d/metrics", self._host, self._port)

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _let_go(self, **_: Any) -> None:
        # A pool process that is forked now has the socket too, and would hold the port when it outlives its parent.
        if self._server is not None:
            self._server.socket.close()


@contextmanager
def monitor_metrics() -> Iterator[None]:
    """Serve this process's own metrics on MDS_MONITOR_METRICS_PORT, if that is set."""
    port = settings().monitor_metrics_port
    if not port:
        yield
        return
    server = MetricsServer(port, "MDS_MONITOR_METRICS_PORT", multiprocess.served())
    server.start()
    try:
        yield
    finally:
        server.stop()
