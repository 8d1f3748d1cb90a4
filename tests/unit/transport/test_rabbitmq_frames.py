"""Frames are taken from what was read, however it was cut on its way."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from amqp.exceptions import UnexpectedFrame

from market_data_store.transport.rabbitmq_frames import _Plain


def frame(payload: bytes, end: bytes = b"\xce") -> bytes:
    return b"\1\0\5" + len(payload).to_bytes(4, "big") + payload + end


@pytest.fixture
def ends() -> Iterator[tuple[Any, socket.socket]]:
    """A transport, and the broker's end of its connection."""
    ours, brokers = socket.socketpair()
    transport = _Plain("localhost")
    transport.sock, transport.connected = ours, True
    transport._setup_transport()
    with ours, brokers:
        yield transport, brokers


def frames_now(transport: Any) -> list[tuple[int, int, bytes]]:
    """Those that have come as a whole."""
    found = []
    with suppress(TimeoutError), transport.having_timeout(0):
        while True:
            found.append(transport.read_frame())
    return found


PAYLOADS = [b"", b"a", b"b" * 70_000, b"\xce" * 9, b"c"]


@pytest.mark.parametrize("step", [1, 7, 8, 4_096, 1_000_000])
def test_frames_that_come_in_pieces(step: int, ends: tuple[Any, socket.socket]) -> None:
    transport, broker = ends
    sent = b"".join(map(frame, PAYLOADS))
    found = []
    for start in range(0, len(sent), step):
        broker.sendall(sent[start : start + step])
        found += frames_now(transport)
    assert found == [(1, 5, payload) for payload in PAYLOADS]
    assert not transport.has_unread
    assert transport.connected


def test_frames_that_come_together_are_taken_without_another_read(ends: tuple[Any, socket.socket]) -> None:
    transport, broker = ends
    broker.sendall(frame(b"a") + frame(b"b") + frame(b"c")[:5])
    assert transport.read_frame() == (1, 5, b"a")
    assert transport.buffered_frame() == (1, 5, b"b")
    assert transport.buffered_frame() is None
    assert transport.has_unread


def test_a_closed_connection_is_said(ends: tuple[Any, socket.socket]) -> None:
    transport, broker = ends
    broker.sendall(frame(b"a"))
    broker.close()
    assert transport.read_frame() == (1, 5, b"a")
    with pytest.raises(OSError, match="closed"):
        transport.read_frame()
    assert not transport.connected


def test_a_frame_that_does_not_end_is_refused(ends: tuple[Any, socket.socket]) -> None:
    transport, broker = ends
    broker.sendall(frame(b"a", end=b"x"))
    with pytest.raises(UnexpectedFrame):
        transport.read_frame()
