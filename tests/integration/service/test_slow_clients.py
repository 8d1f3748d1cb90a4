"""Slow clients of the web process: whatever they keep waiting, health is answered."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support.waiting import wait_until
from support.web import TOKEN, Web, serving

from market_data_store.service.slow_clients import HEAD_TIMEOUT_S, MAX_HEAD_BYTES

pytestmark = pytest.mark.slow

SERVERS = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "BROKER_URL": "redis://127.0.0.1:1/0"}
#: More than there are threads.
MANY = 40
AUTHORIZED = f"Authorization: Bearer {TOKEN}\r\n"
BODY = "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
SLOW = {
    "nothing": "",
    "a part of the head": "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ",
    "a part of the body": f"POST /dead-letters/purge HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}{BODY}",
    "a part of a body that nobody wants": f"POST /dead-letters/purge HTTP/1.1\r\nHost: x\r\n{BODY}",
    "a second request": "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nX-A: ",
    "a request after which it stays": "GET /healthz HTTP/1.0\r\n\r\n",
    "a request whose answer it does not read": "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 30,
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("web"), **SERVERS) as running:
        yield running


def connected(web: Web, text: str = "") -> socket.socket:
    port = int(web.url.rpartition(":")[2])
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.settimeout(30)
    client.connect(("127.0.0.1", port))
    client.sendall(text.encode())
    return client


def answers_quickly(web: Web) -> bool:
    began = time.monotonic()
    assert web.client.get("/healthz").status_code == 200
    return time.monotonic() - began < 5


@pytest.mark.parametrize("what", SLOW)
def test_clients_that_send_a_part_do_not_silence_health(web: Web, what: str) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(web, SLOW[what])) for _ in range(MANY)]
        for _ in range(3):
            assert answers_quickly(web)
            for client in clients:
                drip(client)
    assert answers_quickly(web)


def drip(client: socket.socket) -> None:
    with suppress(OSError):  # web has closed it
        client.send(b"a")


def is_closed(client: socket.socket) -> bool:
    """Whether web closes the connection without an answer."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_a_head_that_takes_too_long_is_given_up(web: Web) -> None:
    with connected(web, SLOW["a part of the head"]) as client:
        began = time.monotonic()
        assert is_closed(client)
        assert HEAD_TIMEOUT_S - 1 < time.monotonic() - began < HEAD_TIMEOUT_S + 10


def test_a_head_that_comes_in_pieces_is_answered(web: Web) -> None:
    head = f"GET /schema/version HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n"
    with connected(web) as client:
        for piece in re.findall("(?s).{1,25}", head):
            client.sendall(piece.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 503 ")  # Postgres is away


def test_requests_that_follow_each_other_on_one_connection_are_all_answered(web: Web) -> None:
    request = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(web) as client:
        client.sendall(request * 3)
        answers = b""
        while answers.count(b"HTTP/1.1 404") < 3:
            got = client.recv(1000)
            assert got, answers
            answers += got


def test_what_is_no_request_is_closed(web: Web) -> None:
    with connected(web) as client:
        with suppress(ConnectionError):
            client.sendall(b"x" * (MAX_HEAD_BYTES + 1))
        assert is_closed(client)
    with connected(web, "GET / HT") as client:
        client.shutdown(socket.SHUT_WR)
        assert is_closed(client)
    assert answers_quickly(web)


def test_a_client_gets_its_whole_answer_before_the_connection_is_closed(web: Web) -> None:
    with connected(web, "GET /openapi.json HTTP/1.0\r\n\r\n") as client:
        time.sleep(0.2)  # it is late, and reads little at a time
        answer = b""
        while got := client.recv(4096):
            answer += got
    head, _, body = answer.partition(b"\r\n\r\n")
    assert len(body) == int(re.findall(rb"(?i)content-length: (\d+)", head)[0])


def test_web_ends_at_once_although_clients_wait(tmp_path: Path) -> None:
    with serving(tmp_path, **SERVERS) as web, ExitStack() as stack:
        for what in ("nothing", "a part of the head", "a request after which it stays"):
            stack.enter_context(connected(web, SLOW[what]))
        assert answers_quickly(web)
        began = time.monotonic()
        web.process.end(10)
        assert time.monotonic() - began < 10
        wait_until(lambda: not web.process.is_running, "it has ended")
