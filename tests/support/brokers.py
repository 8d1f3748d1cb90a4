"""Brokers: marks for cases of one kind, and brokers of a test's own, that can be stopped, killed and started again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery

from market_data_store.local import EmbeddedServer, free_port, start_valkey
from support.rabbitmq import RabbitMQ

on_redis = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
on_rabbitmq = pytest.mark.parametrize("broker_url", ["rabbitmq"], indirect=True)
#: On Redis, and in the slow tier on RabbitMQ.
slow_on_rabbitmq = pytest.mark.parametrize(
    "broker_url", ["redis", pytest.param("rabbitmq", marks=pytest.mark.slow)], indirect=True
)


class Broker:
    """A RabbitMQ or a Valkey that keeps what it has over `stop` or `kill` and another `start`. Made running."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self._directory = directory
        self._rabbitmq = RabbitMQ(directory) if kind == "rabbitmq" else None
        self._valkey: EmbeddedServer | None = None
        self._port = free_port()
        self.url = self._rabbitmq.url if self._rabbitmq else f"redis://127.0.0.1:{self._port}/0"
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs."""
        return {"BROKER_URL": self.url}

    def asked_by(self) -> Celery:
        """An application that can ask it."""
        return Celery(broker=self.url)

    @property
    def pid(self) -> int:
        server = self._rabbitmq or self._valkey
        assert server is not None
        return server.pid

    @property
    def rabbitmq(self) -> RabbitMQ:
        assert self._rabbitmq is not None
        return self._rabbitmq

    def start(self) -> None:
        if self._rabbitmq is not None:
            self._rabbitmq.start()
        else:
            self._valkey = start_valkey(self._directory, port=self._port)

    def stop(self) -> None:
        if self._rabbitmq is not None:
            self._rabbitmq.stop()
        elif self._valkey is not None:
            self._valkey.stop()

    def kill(self) -> None:
        """SIGKILL."""
        if self._rabbitmq is not None:
            self._rabbitmq.kill()
        elif self._valkey is not None:
            self._valkey.process.kill()
            self._valkey.stop()

    @contextmanager
    def taking_no_writes(self) -> Iterator[None]:
        """A Redis that is read-only, or a RabbitMQ whose node has stopped in its running process."""
        if self._rabbitmq is not None:
            self._rabbitmq.control("stop_app")
            yield
            self._rabbitmq.control("start_app")
        else:
            with redis.Redis.from_url(self.url) as server:
                server.replicaof("127.0.0.1", "1")
                yield
                server.replicaof("NO", "ONE")

    def end(self) -> None:
        """Stop it for good."""
        self.stop()

    def lose(self) -> None:
        """SIGKILL, and the disk is gone with it."""
        self.kill()
        shutil.rmtree(self._directory)
        self._directory.mkdir()
