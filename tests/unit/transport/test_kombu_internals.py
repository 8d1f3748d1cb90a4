"""The internals of kombu and py-amqp that the transports override or call are those that were tested.

A release that changes one of them fails here, before it can lose a message.
"""

from __future__ import annotations

import inspect
from operator import attrgetter
from types import ModuleType

import amqp
import kombu
import pytest
from kombu.transport import pyamqp, redis, virtual

from market_data_store.transport.selection import KOMBU

INTERNALS = {
    (amqp.channel, "Channel._on_basic_deliver"): (
        "(self, consumer_tag, delivery_tag, redelivered, exchange, routing_key, msg)"
    ),
    (amqp.abstract_channel, "AbstractChannel.dispatch_method"): "(self, method_sig, payload, content)",
    (amqp.connection, "Connection.Transport"): (
        "(self, host, connect_timeout, ssl=False, "
        "read_timeout=None, write_timeout=None, socket_settings=None, **kwargs)"
    ),
    (amqp.connection, "Connection.blocking_read"): "(self, timeout=None)",
    (amqp.connection, "Connection.drain_events"): "(self, timeout=None)",
    (amqp.serialization, "_read_item"): "(buf, offset)",
    (amqp.transport, "TCPTransport.read_frame"): "(self, unpack=<built-in function unpack>)",
    (pyamqp, "Transport.on_readable"): "(self, connection, loop)",
    (pyamqp, "Channel.basic_ack"): "(self, delivery_tag, multiple=False, argsig='Lb')",
    (pyamqp, "Channel.basic_consume"): (
        "(self, queue='', consumer_tag='', no_local=False, no_ack=False, exclusive=False, nowait=False, "
        "callback=None, arguments=None, on_cancel=None, argsig='BssbbbbF')"
    ),
    (pyamqp, "Channel.basic_reject"): "(self, delivery_tag, requeue, argsig='Lb')",
    (pyamqp, "Channel.message_to_python"): "(self, raw_message)",
    (pyamqp, "Transport.register_with_event_loop"): "(self, connection, loop)",
    (redis, "Channel._brpop_start"): "(self, timeout=None)",
    (redis, "Channel._queue_bind"): "(self, exchange, routing_key, pattern, queue)",
    (redis, "Channel.get_table"): "(self, exchange)",
    (redis, "Channel.maybe_refresh_binding_expiry"): "(self)",
    (redis, "Transport.establish_connection"): "(self)",
    (redis, "Channel._brpop_read"): "(self, **options)",
    (redis, "Channel._do_restore_message"): "(self, payload, exchange, routing_key, pipe, leftmost=False)",
    (redis, "Channel._flush_brpop_reauth"): "(self)",
    (redis, "Channel._q_for_pri"): "(self, queue, pri)",
    (redis, "Channel.conn_or_acquire"): "(self, client=None)",
    (redis, "MultiChannelPoller._register_BRPOP"): "(self, channel)",
    (redis, "QoS.append"): "(self, message, delivery_tag)",
    (redis, "QoS.ack"): "(self, delivery_tag)",
    (redis, "QoS.restore_unacked"): "(self, client=None)",
    (redis, "QoS.restore_visible"): "(self, start=0, num=10, interval=10)",
    (redis, "SentinelChannel._sentinel_managed_pool"): "(self, asynchronous=False)",
    (redis, "SentinelTransport.register_with_event_loop"): "(self, connection, loop)",
    (redis, "Transport.register_with_event_loop"): "(self, connection, loop)",
    (virtual, "Channel.basic_consume"): "(self, queue, no_ack, callback, consumer_tag, **kwargs)",
    (virtual, "QoS.append"): "(self, message, delivery_tag)",
    (virtual, "QoS.ack"): "(self, delivery_tag)",
    (virtual, "QoS.can_consume"): "(self)",
    (virtual, "QoS.restore_unacked_once"): "(self, stderr=None)",
    (virtual, "Transport._deliver"): "(self, message, queue)",
}


def test_this_kombu_is_the_tested_release() -> None:
    assert kombu.__version__.startswith(KOMBU)


@pytest.mark.parametrize(("owner", "expected"), INTERNALS.items(), ids=lambda part: str(part) if part else None)
def test_an_internal_has_the_tested_signature(owner: tuple[ModuleType, str], expected: str) -> None:
    module, name = owner
    assert str(inspect.signature(attrgetter(name)(module))) == expected
