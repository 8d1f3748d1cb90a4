"""The worker class of gunicorn's web process: clients that are slow keep nobody else from an answer.

gunicorn's own gives a connection to a thread as soon as its first byte is there, and the thread then waits for the
rest, so eight slow clients silence eight threads and the platform ends the process. Here a connection has a thread only
once the whole head of its request has arrived, and health has threads of its own. What a thread sends or reads has a
time limit, and a connection that is closed is waited for by nobody.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

#: Seconds that the head of a request may take, and longer than a head can be.
HEAD_TIMEOUT_S = 5.0
MAX_HEAD_BYTES = 64 * 1024
#: Seconds in which a client has to take a piece of the answer, or to send a piece of the body.
CLIENT_TIMEOUT_S = 10.0
#: Seconds in which the rest of a body may come that is too long or not wanted.
_UNWANTED_S, _UNWANTED_AT_HEALTH_S = 1.0, 0.05
#: Seconds in which a client may take what was sent before its connection is closed.
_LINGER_S = 2.0
#: The most connections that wait for a head, or linger; the oldest is closed for another. Below the 1,024 descriptors
#: that a process often may have.
_MOST_WAITING = 300
#: The answers to these are short and made of what is known, so that these threads are never kept waiting.
_HEALTH = tuple(
    b"%s /%s " % (method, path) for method in (b"GET", b"HEAD") for path in (b"healthz", b"health", b"readyz")
)
_HEALTH_THREADS = 4


class Waiting:
    """Connections that the main loop watches, each until its deadline; not thread-safe."""

    def __init__(self, poller: Any, close: Callable[[Any], None]) -> None:
        self._poller = poller
        self._close = close
        self._deadlines: dict[Any, float] = {}

    def add(self, conn: Any, when_readable: Callable[[], None], deadline: float) -> None:
        """Call back when there is more to read; close the connection if that takes too long."""
        if len(self._deadlines) >= _MOST_WAITING:
            self._give_up(next(iter(self._deadlines)))
        self._deadlines[conn] = deadline
        self._poller.register(conn.sock, EVENT_READ, lambda _: self._readable(conn, when_readable))

    def close_late(self, *, all_of_them: bool = False) -> None:
        """Close what has waited too long; they are not in order, but few."""
        now = time.monotonic()
        for conn in [conn for conn, deadline in self._deadlines.items() if deadline <= now or all_of_them]:
            self._give_up(conn)

    def _readable(self, conn: Any, when_readable: Callable[[], None]) -> None:
        self._forget(conn)
        when_readable()

    def _give_up(self, conn: Any) -> None:
        self._forget(conn)
        self._close(conn)

    def _forget(self, conn: Any) -> None:
        del self._deadlines[conn]
        with suppress(KeyError, ValueError, OSError):
            self._poller.unregister(conn.sock)


class Worker(ThreadWorker):
    """gunicorn's threads, for whole requests only."""

    def init_process(self) -> None:
        """Begin; gunicorn's own method runs the loop and returns at the end."""
        self._health_pool = ThreadPoolExecutor(_HEALTH_THREADS)
        super().init_process()

    def run(self) -> None:
        """Serve until the process is to end."""
        self._heads = Waiting(self.poller, self._drop)
        self._lingering = Waiting(self.poller, lambda conn: util.close(conn.sock))
        super().run()
        self._lingering.close_late(all_of_them=True)

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread once the head of its next request is here."""
        if self.cfg.is_ssl:  # what is here cannot be read before the handshake
            super().enqueue_req(conn)
            return
        conn.close = partial(self._closed, conn)
        self._look(conn, seen=-1, deadline=time.monotonic() + HEAD_TIMEOUT_S)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close what waits too long: gunicorn calls this every second, and more often while it ends."""
        super().murder_keepalived(force)
        self._heads.close_late(all_of_them=not self.alive)
        self._lingering.close_late()

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer in a thread, to a client that takes part."""
        conn.sock.settimeout(CLIENT_TIMEOUT_S)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            self.log.debug("A client was too slow.")
            return False

    def _keepalive_after(self, conn: Any, keepalive: Any) -> bool:
        """Read what still comes of a body that nobody wanted, but wait for it no longer than the thread may."""
        patience_s = _UNWANTED_AT_HEALTH_S if conn.is_for_health else _UNWANTED_S
        return bool(keepalive) and bool(conn.parser.finish_body(deadline=time.monotonic() + patience_s))

    def _look(self, conn: Any, seen: int, deadline: float) -> None:
        conn.sock.setblocking(False)
        try:
            waiting = conn.sock.recv(MAX_HEAD_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            waiting = None
        except OSError:
            self._drop(conn)
            return
        head = _read_already(conn) + (waiting or b"")
        if b"\r\n\r\n" in head:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            conn.data_ready = True
            conn.is_for_health = head.startswith(_HEALTH)
            self._hand_over(conn, self._health_pool if conn.is_for_health else self.tpool)
        elif waiting is not None and (len(waiting) <= seen or not waiting or len(head) >= MAX_HEAD_BYTES):
            self._drop(conn)  # it is at its end, or is not a request
        else:
            here = len(waiting or b"")
            # It counts as readable only when there is more than this.
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, here + 1)
            self._heads.add(conn, partial(self._look, conn, here, deadline), deadline)

    def _hand_over(self, conn: Any, pool: ThreadPoolExecutor) -> None:
        def done(future: Future[Any]) -> None:
            self.method_queue.defer(self.finish_request, conn, future)

        pool.submit(self.handle, conn).add_done_callback(done)

    def _drop(self, conn: Any) -> None:
        self.nr_conns -= 1
        util.close(conn.sock)

    def _closed(self, conn: Any, graceful: bool = False) -> None:
        """Close a connection. gunicorn's own waits for the client, in the main loop, while nobody else is served."""
        if not graceful:
            util.close(conn.sock)
            return
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        except OSError:
            util.close(conn.sock)
            return
        self._linger(conn, time.monotonic() + _LINGER_S)

    def _linger(self, conn: Any, deadline: float) -> None:
        """Read what still comes, so that the client gets all of the answer before the connection is reset."""
        try:
            if not conn.sock.recv(MAX_HEAD_BYTES):
                util.close(conn.sock)
                return
        except BlockingIOError:
            pass
        except OSError:
            util.close(conn.sock)
            return
        self._lingering.add(conn, partial(self._linger, conn, deadline), deadline)


def _read_already(conn: Any) -> bytes:
    """Return what gunicorn has read of the next request together with the one before."""
    return bytes(conn.parser.unreader.buf.getvalue()) if conn.parser is not None else b""
