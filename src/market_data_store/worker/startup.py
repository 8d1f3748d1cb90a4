"""A worker's start: checks its settings and its pool, serves its metrics, and relieves the garbage collector."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

from billiard import current_process
from celery.bootsteps import StartStopStep
from celery.concurrency import get_implementation
from celery.signals import celeryd_init, worker_process_init, worker_ready

from market_data_store.app import app
from market_data_store.config import settings
from market_data_store.config.starting import exit_on_wrong_settings
from market_data_store.coordinator.cluster import refuse_cluster
from market_data_store.datasets import DATASETS
from market_data_store.errors import ConfigurationError
from market_data_store.metrics import multiprocess
from market_data_store.metrics.server import MetricsServer

#: How many new objects start a garbage collection. A batch of 5,000 rows makes 20,000, all without cycles.
_GC_THRESHOLD = 50_000


@worker_ready.connect(weak=False)
@worker_process_init.connect(weak=False)
def _relieve_the_garbage_collector(**_: Any) -> None:
    """Freeze the objects that live as long as the process, and collect less often.

    Scanning these objects, and each batch while it is made, took a tenth of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


@celeryd_init.connect(weak=False)
def _require_what_a_worker_needs(conf: Any, options: dict[str, Any], **_: Any) -> None:
    with exit_on_wrong_settings():
        settings().require_broker_url()
        settings().require_database_url()
        len(DATASETS)  # reads the declarations: a wrong one is said before a message is taken
        _require_processes(options.get("pool") or options.get("pool_cls") or conf.worker_pool)
        refuse_cluster(app)


@celeryd_init.connect(weak=False)
def _remember_the_module(**_: Any) -> None:
    """Let SIGHUP start this worker anew if it was started by `python -m celery`: Celery runs `sys.argv` again."""
    if Path(sys.argv[0]).name == "__main__.py":
        sys.argv[:1] = ["-m", "celery"]


def _require_processes(pool: Any) -> None:
    """Refuse the pools whose threads or greenlets share the worker's connection to the broker.

    Celery 5.6 publishes events and acknowledges from these threads while its loop reads: on RabbitMQ another thread
    then reads the confirm of an event, and the worker hangs for ever.
    """
    if not get_implementation(pool).signal_safe:
        raise ConfigurationError(f"--pool {getattr(pool, '__module__', pool)}: use prefork (the default) or solo")


class WorkerMetrics(StartStopStep):
    """Serves the counts of the pool's processes on MDS_WORKER_METRICS_PORT, if that is set."""

    # Starts after the pool, so that the pool's first processes do not inherit the server.
    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        """Whether a port is set."""
        return settings().worker_metrics_port > 0

    def create(self, worker: Any) -> MetricsServer:
        """Make the server; called before the pool is forked."""
        try:
            multiprocess.begin(_slot)
        except ConfigurationError as error:
            raise SystemExit(f"error: {error}") from None
        # Not at the top: metrics that were defined before `begin` count in their own process only.
        from market_data_store.metrics import definitions

        definitions.start_at_zero()
        return MetricsServer(settings().worker_metrics_port, "MDS_WORKER_METRICS_PORT", multiprocess.served())


def _slot() -> str:
    """A pool process's number, Celery's %I: the lowest that no living process has."""
    index = getattr(current_process(), "index", None)
    return "parent" if index is None else f"child{index}"
