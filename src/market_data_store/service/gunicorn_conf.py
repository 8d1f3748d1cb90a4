"""How gunicorn runs the web process: `gunicorn -c python:market_data_store.service.gunicorn_conf '...:create_app()'`.

The names are gunicorn's. One process of eight threads, or as many processes as WEB_CONCURRENCY says, which gunicorn
reads itself; their metrics are served as one by any of them. Requests are not logged: a platform's router does that,
and a URL may hold what is secret.
"""

from __future__ import annotations

import logging
from typing import Any

from market_data_store.config import settings
from market_data_store.metrics import multiprocess

_host = settings().bind_host
bind = f"{f'[{_host}]' if ':' in _host else _host}:{settings().port or settings().app_port}"
worker_class = "gthread"
threads = 8
#: Seconds for requests at SIGTERM; a platform kills after 30.
graceful_timeout = 20
accesslog = None
#: No second way in: gunicorn 25 and later opens a socket in the user's home directory.
control_socket_disable = True

# gunicorn writes its own lines alone; the application's (each admin request is one) go to the same place.
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # eight lines of no use to anyone

_slot = "parent"
multiprocess.begin(lambda: _slot)


def pre_fork(server: Any, worker: Any) -> None:
    """Give a process the lowest slot that no living one has."""
    taken = {other.metrics_slot for other in server.WORKERS.values()}
    worker.metrics_slot = next(slot for n in range(len(taken) + 1) if (slot := f"web{n}") not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """In that process: count there."""
    global _slot
    _slot = worker.metrics_slot


def child_exit(server: Any, worker: Any) -> None:
    """When it is gone."""
    multiprocess.drop_gauges(worker.metrics_slot)
