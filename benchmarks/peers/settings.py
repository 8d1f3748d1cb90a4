"""Celery's settings for the peers: those that are needed to lose nothing, and otherwise Celery's defaults.

Like our workers, the peers acknowledge after the commit. Without that they would be faster, but a worker that dies
would lose the messages that it holds.
"""

from __future__ import annotations

import os

from kombu import Queue

QUEUE = "peer.write"

broker_url = os.environ["BROKER_URL"]
task_default_queue = QUEUE
task_acks_late = True
task_reject_on_worker_lost = True
task_ignore_result = True
broker_connection_retry_on_startup = True
if broker_url.startswith("amqp"):
    task_queues = [Queue(QUEUE, routing_key=QUEUE, queue_arguments={"x-queue-type": "quorum"})]
    task_default_queue_type = "quorum"
    broker_transport_options = {"confirm_publish": True}
