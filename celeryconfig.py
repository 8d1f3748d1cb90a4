"""Celery's settings, each with its purpose; where a default loses messages, with the number of the issue."""

from celery import __version__ as celery_version
from kombu import Queue

from market_data_store.config import settings, undo_celerys_broker_option
from market_data_store.connections.names import process_name
from market_data_store.connections.sentinel import Sentinel, sentinel_of
from market_data_store.connections.urls import is_redis, scheme_of
from market_data_store.protocol import LANES, QUEUE

undo_celerys_broker_option()
_settings = settings()
_redis = is_redis(_settings.broker_url)
_sentinel = sentinel_of(_settings.broker_url)


def _options_of_sentinel(sentinel: Sentinel) -> dict[str, object]:
    """What kombu, the result backend and Flower must know beside the URL."""
    from market_data_store.connections.redis_client import (
        sentinel_options,  # here, because most need no driver of Redis yet
    )

    return {"master_name": sentinel.master, "sentinel_kwargs": sentinel_options(sentinel)}


broker_url = (_sentinel.kombu_url if _sentinel else _settings.broker_url) or None
imports = (
    "market_data_store.worker.logs",
    "market_data_store.worker.startup",
    "market_data_store.worker.tracing",  # its thread is older than the bound of memory
    "market_data_store.worker.memory",
    "market_data_store.worker.database",
    "market_data_store.worker.tasks",
)

# --- Messages: only JSON, a durable queue for each lane, direct routing. Live rows come first; workers consume both.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
task_default_queue = QUEUE
# Redis: a topic exchange whose binding has vanished swallows messages (kombu #1404); the default exchange is direct.
# RabbitMQ: a quorum queue has a message on disk before it confirms it to the publisher. The dead-letter exchange and
# the delivery limit are set by a policy (docs/dead-letters.md), not by arguments here: other Celery clients declare the
# queue without such arguments, and would get 406 PRECONDITION_FAILED (tried on RabbitMQ 3.10.8).
task_queues = [Queue(queue, routing_key=queue, queue_arguments={"x-queue-type": "quorum"}) for queue in LANES.values()]
task_default_queue_type = "quorum"
task_routes = {"store.*": {"queue": QUEUE}}
task_create_missing_queues = False

# --- No message is acknowledged before its rows are committed.
task_acks_late = True
task_reject_on_worker_lost = True  # by default a task whose process died is acknowledged (celery #1628)
if celery_version < "5.7":
    task_acks_on_failure_or_timeout = True  # `worker.coalescing.CoalescedRequest` handles the timeout
else:
    task_acks_on_failure = True
    task_acks_on_timeout = False
# These limits do not apply at shutdown, when running tasks get 18 s (`worker.shutdown`); Celery's soft shutdown would
# only add a wait. They are above MDS_RETRY_DEADLINE_S plus Postgres's time for a batch, and below RabbitMQ's consumer
# timeout of 30 min.
task_soft_time_limit = 60
task_time_limit = 90

# --- The worker.
worker_consumer = "market_data_store.worker.consumer:StoreConsumer"
worker_prefetch_multiplier = _settings.prefetch_messages
# A batch in flight when the connection is lost is still committed, see `worker.coalescing.CoalescedRequest.cancel`.
worker_cancel_long_running_tasks_on_connection_loss = True
worker_enable_prefetch_count_reduction = False  # with quorum queues the worker stops consuming (celery #9512)
worker_redirect_stdouts = False
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # retry for ever
broker_channel_error_retry = True  # survive RabbitMQ's 406 after its consumer timeout (celery #6760)

# --- What Flower and `celery events` show.
worker_send_task_events = True
task_send_sent_event = True
event_serializer = "store-json"  # JSON by `app`'s encoder: Python's own encoder took a tenth of a worker's time

# --- Brokers.
# A plan may have 20 connections for all. Flower asks workers from eight threads, which take turns.
broker_pool_limit = 1 if process_name() == "mds-flower" else 2
broker_transport_options: dict[str, object]
if _redis:
    # The transport is `market_data_store.transport`; its docstring says why no URL or `broker_transport` can name it.
    broker_transport_options = {
        # A message that is not acknowledged within this time is delivered again, such as those of a killed worker.
        # Every client needs the same value.
        "visibility_timeout": _settings.visibility_timeout_s,
        # Look for such messages every ten seconds; kombu's default is about a hundred seconds.
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        # Without these three, a publish to a server that has vanished hangs for ever.
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "health_check_interval": 25,
        "client_name": process_name(),
    }
    if _sentinel:
        # A master whose machine is gone answers nothing, on any connection: each is given up soon, for there is another
        # master then. kombu gives the one on which it waits up at twice the interval.
        broker_transport_options |= {"socket_timeout": 5, "health_check_interval": 4}
        broker_transport_options |= _options_of_sentinel(_sentinel)
else:
    # A publish returns only when the message is safe: two kills of the broker lost 7 of 6,000 messages without this,
    # and none with it.
    broker_transport_options = {"confirm_publish": True, "client_properties": {"connection_name": process_name()}}

# TLS: kombu and the result backend read a rediss:// URL; Flower, and all three with Sentinel, read only this setting.
# With amqps:// kombu requires a certificate of a known authority, but checks the host name only if `server_hostname` is
# set; None is the URL's host.
if scheme_of(_settings.broker_url) in ("rediss", "sentinels", "amqps"):
    broker_use_ssl = _settings.broker_tls if _redis else {"server_hostname": None}

# --- Results: kept in Redis if there is one, else sent to the client that asked.
_results = _settings.broker_url if _redis else (_settings.redis_url or "rpc://")
_result_sentinel = sentinel_of(_results)
result_backend = _result_sentinel.kombu_url if _result_sentinel else _results
result_expires = _settings.result_expires_s
# A result that cannot be stored must not hold up the rows of others.
result_backend_transport_options: dict[str, object] = {"retry_policy": {"timeout": 5.0}}
redis_socket_connect_timeout = 5
redis_socket_timeout = 30
redis_client_name = process_name()
if _result_sentinel:
    redis_socket_timeout = 5
    result_backend_transport_options |= _options_of_sentinel(_result_sentinel)
    if _result_sentinel.tls:
        redis_backend_use_ssl = _result_sentinel.tls
