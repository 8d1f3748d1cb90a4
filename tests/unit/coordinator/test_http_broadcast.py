"""Both publishers are Core `FeedbackPublisher`s, and what they send is Core's."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from market_data_core.protocols import FeedbackPublisher, Sink
from market_data_core.telemetry import FeedbackEvent as CoreFeedbackEvent
from support.waiting import wait_until

from market_data_store.coordinator.feedback import FeedbackEvent
from market_data_store.coordinator.http_broadcast import HttpFeedbackBroadcaster
from market_data_store.coordinator.redis_publisher import RedisFeedbackPublisher
from market_data_store.local import free_port
from market_data_store.producer.sink import StoreSink

EVENT = FeedbackEvent.create("store.write", 850, 1_000, "hard", "no_workers")


class Endpoint:
    """A real HTTP server that answers as it is told and keeps what it was sent."""

    def __init__(self, port: int = 0) -> None:
        self.answers: list[int] = []
        self.received: list[dict[str, Any]] = []
        self.authorization: str | None = None
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # http.server's name
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.received.append(json.loads(body))
                endpoint.authorization = self.headers["authorization"]
                self.send_response(endpoint.answers.pop(0) if endpoint.answers else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/feedback"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture
def broadcaster(endpoint: Endpoint) -> Iterator[HttpFeedbackBroadcaster]:
    publisher = HttpFeedbackBroadcaster(endpoint.url, timeout_s=5.0, max_retries=2, backoff_s=0.001)
    yield publisher
    publisher.close()


def test_both_publishers_satisfy_cores_protocol() -> None:
    redis_publisher = RedisFeedbackPublisher("redis://127.0.0.1:9/0")
    http_broadcaster = HttpFeedbackBroadcaster("http://127.0.0.1:9/")
    for publisher in (redis_publisher, http_broadcaster):
        assert isinstance(publisher, FeedbackPublisher)
        assert inspect.iscoroutinefunction(publisher.publish)
        publisher.close()


def test_the_sink_satisfies_cores_protocol() -> None:
    for name in ("write", "flush", "close"):
        assert inspect.iscoroutinefunction(getattr(StoreSink, name))
        assert hasattr(Sink, name)


def test_http_sends_the_whole_core_payload(endpoint: Endpoint, broadcaster: HttpFeedbackBroadcaster) -> None:
    broadcaster.send(EVENT)
    asyncio.run(broadcaster.publish(EVENT))
    assert [CoreFeedbackEvent.model_validate(sent).queue_size for sent in endpoint.received] == [850, 850]
    assert endpoint.received[0] == json.loads(EVENT.model_dump_json())


def test_http_tries_again_after_a_5xx_only(endpoint: Endpoint, broadcaster: HttpFeedbackBroadcaster) -> None:
    endpoint.answers = [503, 500]
    broadcaster.send(EVENT)
    assert len(endpoint.received) == 3
    endpoint.answers = [503, 503, 503]
    with pytest.raises(httpx.HTTPStatusError):
        broadcaster.send(EVENT)
    assert len(endpoint.received) == 6
    endpoint.answers = [404]
    with pytest.raises(httpx.HTTPStatusError):
        broadcaster.send(EVENT)
    assert len(endpoint.received) == 7


def test_http_sends_the_password_of_its_url_and_shows_it_nowhere(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    broadcaster = HttpFeedbackBroadcaster(endpoint.url.replace("://", "://me:s3cret%2Fx@"), max_retries=0)
    endpoint.answers = [200, 404]
    with caplog.at_level(logging.DEBUG):
        broadcaster.send(EVENT)
        with pytest.raises(httpx.HTTPStatusError) as caught:
            broadcaster.send(EVENT)
    broadcaster.close()
    assert endpoint.authorization == "Basic " + base64.b64encode(b"me:s3cret/x").decode()
    assert endpoint.url in caplog.text
    assert "s3cret" not in caplog.text + str(caught.value)


def test_http_tries_again_while_nobody_listens() -> None:
    port = free_port()
    broadcaster = HttpFeedbackBroadcaster(f"http://127.0.0.1:{port}/", max_retries=12, backoff_s=0.005)
    sender = threading.Thread(target=broadcaster.send, args=(EVENT,))
    started = time.monotonic()
    sender.start()
    wait_until(lambda: time.monotonic() > started + 0.05)  # a try or two is refused
    endpoint = Endpoint(port)
    sender.join(20)
    assert len(endpoint.received) == 1
    endpoint.close()
    broadcaster.close()
