"""What a worker does when it starts: checks its settings and its pool, and spares the garbage collector."""

from __future__ import annotations

import gc
from typing import Any

from billiard import current_process
from celery.bootsteps import StartStopStep
from celery.concurrency import get_implementation
from celery.signals import celeryd_init, worker_process_init, worker_ready

from market_data_store.config import settings
from market_data_store.errors import ConfigurationError
from market_data_store.metrics import multiprocess
from market_data_store.metrics.server import MetricsServer

#: Objects that are made before the garbage collector looks at them; a batch of 5,000 rows makes 20,000, all without
#: cycles.
_GC_THRESHOLD = 50_000


@worker_ready.connect(weak=False)
@worker_process_init.connect(weak=False)
def _spare_the_garbage_collector(**_: Any) -> None:
    """To look at what stays from the start on, and at each batch while it is made, took a tenth of a worker's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


@celeryd_init.connect(weak=False)
def _require_what_a_worker_needs(conf: Any, options: dict[str, Any], **_: Any) -> None:
    try:
        settings().require_broker_url()
        settings().require_database_url()
        _require_processes(options.get("pool") or options.get("pool_cls") or conf.worker_pool)
    except ConfigurationError as error:
        raise SystemExit(f"error: {error}") from None


def _require_processes(pool: Any) -> None:
    """Refuse the pools whose threads or greenlets share the worker's connection to the broker.

    Celery 5.6 publishes events and acknowledges from them, beside the loop that reads: on RabbitMQ the confirm of an
    event is then read by another thread, and the worker stands still for good.
    """
    if not get_implementation(pool).signal_safe:
        raise ConfigurationError(f"--pool {getattr(pool, '__module__', pool)}: use prefork (the default) or solo")


class WorkerMetrics(StartStopStep):
    """The worker's part that serves what its pool processes count on MDS_WORKER_METRICS_PORT, if that is set."""

    # Started after the pool: its first processes then know nothing of the server.
    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        """Whether there is a port."""
        return settings().worker_metrics_port > 0

    def create(self, worker: Any) -> MetricsServer:
        """Before the pool is forked."""
        multiprocess.begin(_slot)
        # Not earlier: definitions that were made before `begin` count in their own process alone.
        from market_data_store.metrics import definitions

        definitions.start_at_zero()
        return MetricsServer(settings().worker_metrics_port, "MDS_WORKER_METRICS_PORT", multiprocess.served())


def _slot() -> str:
    """A pool process's number, which Celery calls %I: the lowest that no living one has."""
    index = getattr(current_process(), "index", None)
    return "parent" if index is None else f"child{index}"
