"""kombu's AMQP channel, with acknowledgements that are sent together.

The broker numbers the messages of a channel from 1. The acknowledgements of one turn of the event loop are sent as one
`multiple` acknowledgement up to the highest number below which no message is open; those above it are sent one by one.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from amqp import spec
from kombu.transport import pyamqp

from market_data_store.transport import rabbitmq_frames
from market_data_store.transport.rabbitmq_decoding import delivery

logger = logging.getLogger(__name__)


class Message(pyamqp.Message):
    """A message whose body is as it was sent: kombu would unpack it, whatever its size then is."""

    is_packed = True

    def __init__(self, msg: Any, channel: Any = None, **kwargs: Any) -> None:
        headers = msg.properties.get("application_headers")
        compression = headers.pop("compression", None) if isinstance(headers, dict) else None
        super().__init__(msg, channel=channel, **kwargs)
        if compression is not None:
            self.headers["compression"] = compression
        #: The queue from which it was taken, whatever its sender says; None if that is not known.
        self.queue: str | None = None


class Channel(pyamqp.Channel):
    """kombu's channel; it sends acknowledgements together where an event loop runs."""

    Message = Message

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The numbers of messages that are neither acknowledged nor rejected, ascending.
        self._open: dict[int, None] = {}
        self._acks: list[int] = []
        self._latest = 0
        #: Whether all messages up to the latest are known; if not, an unknown one may be open.
        self._knows_all = True
        #: The queues that are consumed, by the tags of their consumers.
        self._queues: dict[str, str] = {}
        super().__init__(*args, **kwargs)
        # py-amqp would decode a body by whatever its sender calls its encoding, and so change it.
        self.auto_decode = False

    def dispatch_method(self, method_sig: Any, payload: Any, content: Any) -> None:
        """Hand a method to who waits for it; a message's delivery on a short way, since it has one for each message."""
        if method_sig != spec.Basic.Deliver or self.is_closing:
            super().dispatch_method(method_sig, payload, content)
        else:
            self._on_basic_deliver(*delivery(payload), content)

    def basic_consume(self, queue: str = "", consumer_tag: str = "", *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue."""
        self._queues[consumer_tag] = queue  # before the broker is asked: its messages can come before its answer
        return super().basic_consume(queue, consumer_tag, *args, **kwargs)

    def message_to_python(self, raw_message: Any) -> Any:
        """Convert a message, and note it as open unless its consumer does not acknowledge."""
        number, consumer = raw_message.delivery_tag, raw_message.delivery_info.get("consumer_tag")
        if number != self._latest + 1 or consumer is None:  # `basic_get` does not say whether it is acknowledged
            self._knows_all = False
        self._latest = number
        if self._knows_all and consumer not in self.no_ack_consumers:
            self._open[number] = None
        message = super().message_to_python(raw_message)
        message.queue = self._queues.get(consumer)
        return message

    def basic_ack(self, delivery_tag: int, multiple: bool = False, **kwargs: Any) -> Any:
        """Acknowledge together with others at the event loop's next turn; at once where no loop runs."""
        hub = self.connection and self.connection.hub
        if hub is None or multiple or not self._knows_all:
            self.flush_acks()
            for number in [n for n in self._open if n <= delivery_tag] if multiple else [delivery_tag]:
                self._open.pop(number, None)
            return super().basic_ack(delivery_tag, multiple, **kwargs)
        if not self._acks:
            hub.call_later(0.0, self.flush_acks)  # not `call_soon`, which may wait until something wakes the loop
        self._acks.append(delivery_tag)
        return None

    def basic_reject(self, delivery_tag: int, requeue: bool, **kwargs: Any) -> Any:
        """Give a message back, or let the broker drop it."""
        self._open.pop(delivery_tag, None)
        return super().basic_reject(delivery_tag, requeue, **kwargs)

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Send the collected acknowledgements, and close."""
        self.flush_acks()
        return super().close(*args, **kwargs)

    def flush_acks(self) -> None:
        """Send the collected acknowledgements; on a lost connection they are void."""
        acks, self._acks = self._acks, []
        for number in acks:
            self._open.pop(number, None)
        first_open = next(iter(self._open), self._latest + 1)
        below = [number for number in acks if number < first_open] if self._knows_all else []
        try:
            if below:
                super().basic_ack(max(below), multiple=True)
            for number in acks:
                if not below or number > first_open:
                    super().basic_ack(number)
        except Exception as error:  # noqa: BLE001  # a lost connection can raise anything; the loop sees it as well
            logger.warning("%d acknowledged messages are redelivered (%s)", len(acks), type(error).__name__)


class Connection(rabbitmq_frames.Connection):
    """A connection of such channels, which also says why the broker blocks it."""

    Channel = Channel
    # py-amqp does not read the reason.
    _METHODS: ClassVar[dict[Any, Any]] = {
        **pyamqp.Connection._METHODS,
        spec.Connection.Blocked: spec.method(spec.Connection.Blocked, "s"),
    }

    def _on_blocked(self, reason: str = "see the broker's log") -> Any:
        return self.on_blocked(reason) if self.on_blocked else None

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Send the collected acknowledgements, and close."""
        for channel in list((self.channels or {}).values()):
            if isinstance(channel, Channel):  # channel 0 is the connection itself
                channel.flush_acks()
        return super().close(*args, **kwargs)


class Transport(pyamqp.Transport):
    """For amqp://."""

    Connection = Connection

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Take the worker's event loop; called by the worker."""
        super().register_with_event_loop(connection, loop)
        connection.hub = loop

    def on_readable(self, connection: Any, loop: Any) -> None:
        """Handle what has come; called by the worker's event loop."""
        connection.read_on()


class SSLTransport(Transport, pyamqp.SSLTransport):
    """For amqps://."""
