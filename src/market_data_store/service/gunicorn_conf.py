"""gunicorn's settings for web: `gunicorn -c python:market_data_store.service.gunicorn_conf '...:create_app()'`.

The names are gunicorn's. It runs one process of eight threads, or as many processes as WEB_CONCURRENCY says, which
gunicorn reads itself. Each process serves the metrics of all of them. Requests are not logged: a platform's router does
that, and a URL may contain secrets.
"""

from __future__ import annotations

import logging
from typing import Any

from market_data_store.app import app
from market_data_store.config import settings
from market_data_store.config.starting import begin_log, exit_on_wrong_settings
from market_data_store.connections.addresses import with_port
from market_data_store.coordinator.cluster import refuse_cluster
from market_data_store.datasets import DATASETS
from market_data_store.errors import ConfigurationError
from market_data_store.metrics import multiprocess

logger = logging.getLogger(__name__)
begin_log("web")
with exit_on_wrong_settings():
    settings().require_database_url()
    settings().require_broker_url()
    len(DATASETS)  # reads the declarations
bind = with_port(settings().bind_host, settings().port or settings().app_port)
worker_class = "market_data_store.service.slow_clients.Worker"
threads = 8
#: Fewer than the 1,024 descriptors that a process often may have, with those that linger.
worker_connections = 500
#: Seconds that requests may take after SIGTERM; a platform kills the process after 30.
graceful_timeout = 20
accesslog = None
logger_class = "market_data_store.service.gunicorn_log.Log"
#: gunicorn 25 and later opens a control socket in the user's home directory, a second way into the process.
control_socket_disable = True

_slot = "parent"
try:
    multiprocess.begin(lambda: _slot)
except ConfigurationError as error:
    raise SystemExit(f"error: {error}") from None


def on_starting(server: Any) -> None:
    """End with one line if the broker cannot be used, and say once if the admin endpoints are closed."""
    with exit_on_wrong_settings():
        refuse_cluster(app)
    if why := settings().closes_admin:
        logger.warning("%s", why)


def pre_fork(server: Any, worker: Any) -> None:
    """Give a new process the lowest slot that no live one has."""
    taken = {other.metrics_slot for other in server.WORKERS.values()}
    worker.metrics_slot = next(slot for n in range(len(taken) + 1) if (slot := f"web{n}") not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """Count in that slot; runs in the new process."""
    global _slot
    _slot = worker.metrics_slot


def child_exit(server: Any, worker: Any) -> None:
    """Drop the gauges of a process that has ended."""
    multiprocess.drop_gauges(worker.metrics_slot)
