"""The Celery application: `celery -A market_data_store.app worker`. Its settings stand in celeryconfig.py."""

from __future__ import annotations

import gc
import importlib.util
import time
from types import ModuleType
from typing import Any

import msgspec
from celery import Celery
from celery.concurrency import get_implementation
from celery.signals import before_task_publish, celeryd_init, worker_process_init, worker_ready
from kombu.serialization import register
from kombu.utils.json import dumps, loads

from market_data_store.config import resource, settings
from market_data_store.errors import ConfigurationError
from market_data_store.protocol import ARROW, ENQUEUED_AT_HEADER, SERIALIZER, TABLE_SERIALIZER, TASK
from market_data_store.transport import StoreAMQP

#: Objects that are made before the garbage collector looks at them; a batch of 5,000 rows makes 20,000, all without
#: cycles.
_GC_THRESHOLD = 50_000


def _celeryconfig() -> ModuleType:
    path = resource("celeryconfig.py")
    spec = importlib.util.spec_from_file_location("market_data_store_celeryconfig", path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except ValueError:  # half a surrogate pair, say in an event of a foreign message's id
        return str(dumps(value)).encode()


register(SERIALIZER, _encoded, loads, content_type="application/json", content_encoding="utf-8")
register(TABLE_SERIALIZER, lambda body: body[0][1], bytes, content_type=ARROW, content_encoding="binary")

app = Celery("market_data_store", amqp=StoreAMQP)
app.config_from_object(_celeryconfig())
app.steps["worker"].add("market_data_store.metrics_server:WorkerMetrics")  # by name: a client has no need of it


@before_task_publish.connect(sender=TASK, weak=False)
def _stamp(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """A message carries when it was first enqueued, also through retries and replays."""
    if headers is not None:
        headers.setdefault(ENQUEUED_AT_HEADER, time.time())


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
