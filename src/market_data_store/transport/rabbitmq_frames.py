"""py-amqp's connection, which reads what has come at once, and takes frame after frame from memory.

py-amqp asks the operating system for each part of a frame: eight times for a message, which has three frames. Besides,
kombu handles one message in a turn of the worker's loop. With messages of one row that was half of the worker's time.

What was read and is not handled yet, no poll of the socket shows. So whoever drains the connection of a worker lets the
loop go on with the rest.
"""

from __future__ import annotations

import struct
from typing import Any

from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.transport import _UNAVAIL, SSLTransport, TCPTransport
from kombu.transport import pyamqp

#: The most bytes that are read at once.
_READ_BYTES = 1 << 16
#: The most events (messages, answers) that are handled in one turn of the loop.
_EVENTS_AT_ONCE = 50
#: A frame's type, its channel, and the size of its payload; the payload follows, and one octet that ends the frame.
_HEAD = struct.Struct(">BHI")
_END = 0xCE


class _Buffered:
    """A py-amqp transport that reads ahead."""

    _quick_recv: Any
    connected: bool

    _unread = b""
    #: Where in `_unread` the next frame begins.
    _at = 0

    def buffered_frame(self) -> tuple[int, int, bytes] | None:
        """Take the next frame if all of it was read; raises `UnexpectedFrame`."""
        unread, start = self._unread, self._at + _HEAD.size
        if len(unread) <= start:
            return None
        kind, channel, size = _HEAD.unpack_from(unread, self._at)
        end = start + size
        if len(unread) <= end:
            return None
        if unread[end] != _END:
            raise UnexpectedFrame(f"Received frame_end {unread[end]:#04x} while expecting {_END:#04x}")
        self._at = end + 1
        return kind, channel, unread[start:end]

    def read_frame(self, unpack: Any = None) -> tuple[int, int, bytes]:
        """Take the next frame, and wait for it as long as the socket does; what has come of it stays for the next."""
        while (frame := self.buffered_frame()) is None:
            self._read_on()
        return frame

    @property
    def has_unread(self) -> bool:
        """Whether there is something that was read and not taken."""
        return len(self._unread) > self._at

    def _read_on(self) -> None:
        try:
            found = self._quick_recv(_READ_BYTES)
        except OSError as error:
            if not isinstance(error, TimeoutError) and error.errno not in _UNAVAIL and "timed out" not in str(error):
                self.connected = False
            raise
        if not found:
            self.connected = False
            raise OSError("Server unexpectedly closed connection")
        self._unread, self._at = self._unread[self._at :] + found, 0


class _Plain(_Buffered, TCPTransport):
    """For amqp://."""


class _Encrypted(_Buffered, SSLTransport):
    """For amqps://."""


class Connection(pyamqp.Connection):
    """kombu's connection with such a transport."""

    #: The event loop of the worker that consumes over this connection.
    hub: Any = None
    _goes_on = False

    def Transport(self, host: str, connect_timeout: Any, ssl: Any = False, *args: Any, **options: Any) -> Any:  # noqa: N802  # py-amqp's name
        """Make the transport."""
        kind = _Encrypted if ssl else _Plain
        timeouts = dict(zip(("read_timeout", "write_timeout"), args, strict=False))
        return kind(host, connect_timeout=connect_timeout, ssl=ssl, **timeouts, **options)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Handle a frame; the socket is asked, within `timeout` seconds, only if no whole frame was read."""
        transport = self.transport
        frame = transport.buffered_frame()
        if frame is None:
            with transport.having_timeout(timeout):
                frame = transport.read_frame()
        return self.on_inbound_frame(frame)

    def drain_events(self, timeout: float | None = None) -> Any:
        """Handle an event, and let the worker's loop go on with what was read besides."""
        try:
            return super().drain_events(timeout)
        finally:
            if self.hub is not None and not self._goes_on and self.connected and self.transport.has_unread:
                self._goes_on = True
                # Not `call_soon`: what the loop's own timers call soon waits until something else wakes the loop.
                self.hub.call_later(0.0, self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        if self.connected:
            self.read_on()

    def read_on(self) -> None:
        """Handle what has come, in the worker's loop; raises the error of a lost connection."""
        if not self.connected:
            raise RecoverableConnectionError("Socket was disconnected")
        try:
            for _ in range(_EVENTS_AT_ONCE):
                self.drain_events(timeout=0)
        except TimeoutError:
            pass  # there is nothing more
        except OSError as error:
            if error.errno not in _UNAVAIL:
                raise
