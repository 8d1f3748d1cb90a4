"""A message of a Redis list, whatever is in it."""

from __future__ import annotations

from typing import Any

from kombu.transport import base, virtual
from kombu.utils.json import dumps

from market_data_store.transport.moving import DELIVERY_COUNT_HEADER


class Message(virtual.Message):
    """A message as it was sent: kombu would unpack its body, whatever its size then is.

    A body that is not what it should be, a text, is kept as JSON, or as the text that is not base64.
    """

    is_packed = True

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        self._raw = payload
        properties = payload["properties"]
        base.Message.__init__(
            self,
            body=_body(payload.get("body"), properties.get("body_encoding"), channel),
            channel=channel,
            delivery_tag=properties["delivery_tag"],
            content_type=payload.get("content-type"),
            content_encoding=payload.get("content-encoding"),
            properties=properties,
            delivery_info=properties.get("delivery_info"),
            **kwargs,
        )
        headers = payload.get("headers")
        self.headers = headers if isinstance(headers, dict) else {}
        self.headers.pop(DELIVERY_COUNT_HEADER, None)  # RabbitMQ's: here, nobody but the sender has written it
        #: In epoch seconds, by the server's clock; None where the server does not tell its time.
        self.taken_at: float | None = channel.taken_at
        #: The queue from which it was taken, whatever its sender says; None if that is not known.
        self.queue: str | None = channel.delivers_from


def _body(sent: Any, encoding: Any, channel: Any) -> bytes:
    if not isinstance(sent, str):
        return b"" if sent is None else str(dumps(sent)).encode("utf-8", "surrogatepass")
    if sent and isinstance(encoding, str) and encoding in channel.codecs:
        try:
            decoded: bytes = channel.decode_body(sent, encoding)
        except ValueError:
            pass
        else:
            return decoded
    return sent.encode("utf-8", "surrogatepass")
