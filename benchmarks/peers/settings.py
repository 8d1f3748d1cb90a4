"""Celery's settings for the peers: what it takes to lose nothing, and apart from that Celery's defaults.

They acknowledge after the commit, as ours do. Without that they would be quicker, and a worker that dies would take
with it what it holds.
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
