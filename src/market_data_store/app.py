"""The Celery application: `celery -A market_data_store.app worker`. Its settings are in celeryconfig.py."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import click
import msgspec
from celery import Celery
from celery.local import PromiseProxy
from celery.signals import before_task_publish
from kombu.serialization import register
from kombu.utils.json import dumps, loads

from market_data_store.config import resource, settings
from market_data_store.config.starting import begin_log, exit_on_wrong_settings
from market_data_store.connections.compression import bound
from market_data_store.connections.names import process_name
from market_data_store.coordinator.clock import broker_clock
from market_data_store.errors import ConfigurationError
from market_data_store.protocol import ARROW, ENQUEUED_AT_HEADER, SERIALIZER, TABLE_SERIALIZER, TASK
from market_data_store.transport.selection import StoreAMQP


def _celeryconfig() -> ModuleType:
    # The program `celery` asks for these settings while it reads its options, and would show a traceback.
    is_run_by_celery = _is_run_by_celery()
    if is_run_by_celery and process_name() == "mds-worker":
        begin_log("worker")
    with exit_on_wrong_settings() if is_run_by_celery else nullcontext():
        settings()
    path = resource("celeryconfig.py")
    spec = importlib.util.spec_from_file_location("market_data_store_celeryconfig", path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_run_by_celery() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and getattr(context.find_root().obj, "app", None) is app


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except ValueError:  # half a surrogate pair, for example in an event about a foreign message's id
        return str(dumps(value)).encode()


bound(lambda: settings().max_message_bytes)
register(SERIALIZER, _encoded, loads, content_type="application/json", content_encoding="utf-8")
register(TABLE_SERIALIZER, lambda body: body[0][1], bytes, content_type=ARROW, content_encoding="binary")

# Without Celery's only fixup, which is Django's: it imports celery.worker, of which a producer has no need.
app = Celery("market_data_store", amqp=StoreAMQP, control="market_data_store.transport.control:StoreControl", fixups=())
app.config_from_object(PromiseProxy(_celeryconfig))  # read at the first use of app.conf, not at import
app.steps["worker"].add("market_data_store.worker.startup:WorkerMetrics")  # by name: a client does not need it


@before_task_publish.connect(sender=TASK, weak=False)
def _stamp(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Stamp a message with the time at which it is first enqueued; retries and replays keep the stamp."""
    if headers is not None and ENQUEUED_AT_HEADER not in headers:
        clock = broker_clock(app)
        clock.refresh()
        headers[ENQUEUED_AT_HEADER] = clock.now()


if process_name() == "mds-flower":
    from market_data_store.coordinator.events import ignore_malformed  # here, because nobody else reads events

    ignore_malformed()
