"""Celery's settings, each with what it is for; where a default loses messages, with the issue that tells."""

from celery import __version__ as celery_version
from kombu import Queue

from market_data_store.config import settings
from market_data_store.protocol import QUEUE

_settings = settings()
_redis = _settings.broker_url.startswith(("redis", "sentinel"))

broker_url = _settings.broker_url or None
imports = ("market_data_store.worker.startup", "market_data_store.worker.tasks")

# --- Messages: JSON alone, one durable queue, routed directly.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
task_default_queue = QUEUE
# Redis: a topic exchange whose binding vanished swallows messages (kombu #1404); the default exchange is direct.
# RabbitMQ: a quorum queue is on disk before its publisher hears of it. Its dead-letter exchange and delivery limit are
# a policy (docs/dead-letters.md), no arguments here: other Celery clients declare the queue without them, and would be
# answered 406 PRECONDITION_FAILED (tried on RabbitMQ 3.10.8).
task_queues = [Queue(QUEUE, routing_key=QUEUE, queue_arguments={"x-queue-type": "quorum"})]
task_default_queue_type = "quorum"
task_routes = {"store.*": {"queue": QUEUE}}
task_create_missing_queues = False

# --- Nothing is acknowledged before its rows are committed.
task_acks_late = True
task_reject_on_worker_lost = True  # by default a task whose process died is acknowledged (celery #1628)
if celery_version < "5.7":
    task_acks_on_failure_or_timeout = True  # the timeout is dealt with in `worker.coalescing.CoalescedRequest`
else:
    task_acks_on_failure = True
    task_acks_on_timeout = False
# Not at shutdown, when what runs gets 18 s, see `worker.shutdown`: Celery's soft shutdown would only wait besides.
# Above MDS_RETRY_DEADLINE_S and what Postgres takes for a batch; below RabbitMQ's consumer timeout of 30 min.
task_soft_time_limit = 60
task_time_limit = 90

# --- The worker.
worker_consumer = "market_data_store.worker.consumer:StoreConsumer"
worker_prefetch_multiplier = _settings.prefetch_messages
# The batch in flight when the connection is lost is committed, see `worker.coalescing.CoalescedRequest.cancel`.
worker_cancel_long_running_tasks_on_connection_loss = True
worker_enable_prefetch_count_reduction = False  # with quorum queues it stops consuming (celery #9512)
worker_hijack_root_logger = True
worker_redirect_stdouts = False
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # for ever
broker_channel_error_retry = True  # survives RabbitMQ's 406 after its consumer timeout (celery #6760)

# --- What Flower and `celery events` show.
worker_send_task_events = True
task_send_sent_event = True
event_serializer = "store-json"  # JSON, of `app`: Python's own took a tenth of a worker's time

# --- Brokers.
if _redis:
    # The transport is `market_data_store.transport`; a URL or `broker_transport` could not name it, see there.
    broker_transport_options = {
        # A message that was taken and not acknowledged comes back after this; every client needs the same value. It is
        # also when what a killed worker held is delivered again.
        "visibility_timeout": _settings.visibility_timeout_s,
        # Look for such messages every ten seconds; kombu's default is about a hundred.
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        # Without them a publish to a server that vanished hangs for ever.
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "health_check_interval": 25,
    }
else:
    # A publish returns when the message is safe: two kills of the broker lost 7 of 6,000 without, 0 with.
    broker_transport_options = {"confirm_publish": True}

# TLS: kombu and the result backend read a rediss:// URL, Flower this alone. For amqps:// a certificate of a known
# authority is asked for, but for this host only where kombu is told to; None stands for the URL's host.
if _settings.broker_url.startswith(("rediss", "amqps")):
    broker_use_ssl = _settings.broker_tls if _redis else {"server_hostname": None}

# --- Results: in Redis where there is one, else to the client that asked.
result_backend = _settings.broker_url if _redis else (_settings.redis_url or "rpc://")
result_expires = _settings.result_expires_s
# A result that cannot be stored must not hold up the rows of others.
result_backend_transport_options = {"retry_policy": {"timeout": 5.0}}
redis_socket_connect_timeout = 5
redis_socket_timeout = 30
