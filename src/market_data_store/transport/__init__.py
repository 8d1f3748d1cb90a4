"""The way to the broker: kombu's own transports, but a killed worker loses no message, and many messages cost little.

RabbitMQ loses none by itself; there only acknowledgements are sent together, see `rabbitmq`. The rest is about Redis.

Why. kombu takes a message off its list (BRPOP) and records it as unacknowledged in a second step. A worker that dies
between the two has lost the message: 40 in 125 kills under load. Both that record and the acknowledgement cost a round
trip for each message, which is four fifths of a worker's time when messages are small.

How. One script (`redis.scripts.FETCH`) takes up to 100 messages, at most as many as the prefetch limit allows, and
records them in the same step (`redis.channel`). Acknowledgements gather for some milliseconds and are sent together
(`redis.qos`). While there is nothing to take, the channel sends BLMOVE, with the list as source and destination, before
the script: BLMOVE waits until the list holds a message, and leaves it there.

What stays. Keys, format, visibility timeout, priorities, prefetch, remote control and publishing are kombu's own code:
kombu's workers and ours share queues, and take over each other's unacknowledged messages.

What it needs. EVAL and BLMOVE (Redis 6.2, Valkey). Where the server refuses EVAL, the channel says so once and goes on
as kombu does; where it refuses BLMOVE, the channel looks for messages ten times a second instead.

`selection` puts both transports in place, for the connections of one Celery application only. They rely on internals
of kombu and py-amqp; with a release that they were not tested with, the application gets kombu's own transports.
"""
