"""Transports to the broker: kombu's, except that a killed worker loses no message and small messages are cheap.

RabbitMQ loses no message by itself; its transport only sends acknowledgements together, see `rabbitmq`. The rest of
this page is about Redis.

Why. kombu takes a message off its list (BRPOP) and records it as unacknowledged in a second step. A worker that dies
between the two steps loses the message: 40 in 125 kills under load. The record and the acknowledgement each cost one
round trip a message, which is four fifths of a worker's time when messages are small.

How. One script (`redis.scripts.FETCH`) takes up to 100 messages, at most as many as the prefetch limit allows, and
records them in the same step (`redis.channel`). Acknowledgements are collected for a few milliseconds and sent together
(`redis.qos`). While the list is empty, the channel sends BLMOVE before the script, with the list as both source and
destination: BLMOVE waits until the list has a message, and leaves it there.

Of the task's queues, that of live rows comes first, whatever the priorities of messages (`redis.order`). Each queue has
a prefetch limit of its own: on RabbitMQ the broker counts by consumer, on Redis `redis.qos` does. A message tells from
which queue it was taken (`Message.queue`), whatever its sender says.

What stays. Keys, format, visibility timeout, priorities in a queue, remote control and publishing are kombu's own code:
kombu's workers and the store's share queues, and take over each other's unacknowledged messages. A record has one name
more than kombu's: `taken_at`, the server's time when the message was first taken. kombu passes it on.

What it needs. EVAL and BLMOVE (Redis 6.2, Valkey). If the server refuses EVAL, the channel logs it once and works as
kombu does; if it refuses BLMOVE, the channel polls ten times a second instead.

`selection` installs both transports, only for the connections of one Celery application. They rely on internals of
kombu and py-amqp; with an untested release, the application gets kombu's own transports.
"""
