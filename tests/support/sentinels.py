"""A Redis of one master and one replica behind three sentinels, each a process of its own that may be killed.

All are the embedded Valkey's program, which is a sentinel with `--sentinel`. Redis and sentinels have passwords, which
URLs must percent-encode.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from celery import Celery

from market_data_store.local.programs import valkey_program
from support.doors import Certificates
from support.ports import free_ports
from support.processes import Process
from support.requirements import missing
from support.waiting import wait_until

#: Of the package redis-tools: server, sentinel and two checkers in one.
REDIS_WITH_TLS = Path("/usr/bin/redis-check-rdb")
#: The name of the master.
MASTER = "store"
PASSWORD, SENTINEL_PASSWORD = "p/w#1?", "s@w:2;"
#: After how many milliseconds without an answer a sentinel takes the master for dead.
_DOWN_AFTER_MS = 1_000
_SERVER = """
bind 127.0.0.1
{port}
dir {directory}
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
requirepass {password}
masterauth {password}
{more}
"""
_SENTINEL = """
bind 127.0.0.1
{port}
dir {directory}
requirepass {sentinel_password}
sentinel monitor {name} 127.0.0.1 {master} 2
sentinel auth-pass {name} {password}
sentinel down-after-milliseconds {name} {down_after_ms}
sentinel failover-timeout {name} 5000
{more}
"""


def require_redis_with_tls() -> None:
    """A Redis that speaks TLS is installed, or the test is `missing` it."""
    if not REDIS_WITH_TLS.exists():
        missing("redis-tools is not installed; on Debian: apt-get install redis-tools")


class Sentinels:
    """The five processes. Made running."""

    def __init__(self, directory: Path, *, tls: Certificates | None = None) -> None:
        """With `tls` all speak it, and nothing else."""
        self._directory = directory
        self._tls = tls
        self._program = _program_with_tls(directory) if tls else valkey_program()
        ports = free_ports(5)
        self.ports, self.sentinel_ports = ports[:2], ports[2:]
        self._servers: dict[int, Process] = {}
        self._start(self.ports[0])
        self._start(self.ports[1], of=self.ports[0])
        self.sentinels = [self._start_sentinel(port) for port in self.sentinel_ports]
        self._wait_for_replica()

    @property
    def url(self) -> str:
        """In kombu's spelling."""
        password = quote(PASSWORD, safe="")
        scheme = "sentinels" if self._tls else "sentinel"
        return ";".join(f"{scheme}://:{password}@127.0.0.1:{port}/0" for port in self.sentinel_ports)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs: here only the first host has the password, which counts for all."""
        first, *others = self.url.split(";")
        password = quote(PASSWORD, safe="")
        return {
            "BROKER_URL": ";".join([first, *(other.replace(f":{password}@", "") for other in others)]),
            "MDS_SENTINEL_MASTER": MASTER,
            "MDS_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        }

    @property
    def master(self) -> int:
        """The port of the master, by the first sentinel."""
        with self._client(self.sentinel_ports[0], SENTINEL_PASSWORD) as client:
            found: Any = _answer(client, "GET-MASTER-ADDR-BY-NAME")
            return int(found[1])

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A client of the master."""
        with self._client(self.master, PASSWORD) as client:
            yield client

    def kill_master(self) -> int:
        """SIGKILL; returns its port."""
        port = self.master
        self._servers[port].kill()
        return port

    @property
    def master_pid(self) -> int:
        return self._servers[self.master].pid

    def stop_master(self) -> int:
        """SIGTERM, as a service manager does; returns its port."""
        port = self.master
        self._servers[port].send_signal(signal.SIGTERM)
        self._servers[port].wait()
        return port

    def fail_over(self) -> None:
        """Order a failover, as an operator does, and wait until the servers have changed places."""
        self._wait_for_replica()
        before = self.master
        with self._client(self.sentinel_ports[0], SENTINEL_PASSWORD) as client:
            _answer(client, "FAILOVER")
        self.await_failover(before)

    def await_failover(self, killed: int, *, timeout_s: float = 30.0) -> None:
        """Wait until another server is the master."""
        wait_until(lambda: self.master != killed and self._is_master(self.master), self.said, timeout_s=timeout_s)

    def bring_back(self, port: int) -> None:
        """Start a killed server as the replica of the master, and wait until it has what the master has."""
        self._start(port, of=self.master)
        self._wait_for_replica()

    def said(self) -> str:
        """The ends of the logs."""
        return "\n---\n".join(process.said() for process in (*self._servers.values(), *self.sentinels))

    def stop(self) -> None:
        for process in (*self.sentinels, *self._servers.values()):
            process.kill()

    def _start(self, port: int, of: int | None = None) -> None:
        more = f"replicaof 127.0.0.1 {of}" if of else ""
        self._servers[port] = self._launch("server", port, _SERVER, more)
        wait_until(lambda: self._answers(port, PASSWORD), self._servers[port].said)

    def _start_sentinel(self, port: int) -> Process:
        process = self._launch("sentinel", port, _SENTINEL, "", "--sentinel")
        wait_until(lambda: self._answers(port, SENTINEL_PASSWORD), process.said)
        return process

    def _launch(self, name: str, port: int, configuration: str, more: str, *options: str) -> Process:
        directory = self._directory / f"{name}-{port}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "configuration"  # the server rewrites it
        path.write_text(
            configuration.format(
                port=self._port(port),
                directory=directory,
                password=f'"{PASSWORD}"',
                sentinel_password=f'"{SENTINEL_PASSWORD}"',
                name=MASTER,
                master=self.ports[0],
                down_after_ms=_DOWN_AFTER_MS,
                more=more,
            )
        )
        return Process(self._program, path, *options, directory=directory, name="log")

    def _wait_for_replica(self) -> None:
        """Until the replica is in step, and all sentinels know of it and of each other; the master may change."""

        def is_known() -> bool:
            if not self._has_replica(self.master):
                return False
            for port in self.sentinel_ports:
                with self._client(port, SENTINEL_PASSWORD) as client:
                    if not _is_complete(client):
                        return False
            return True

        wait_until(is_known, self.said, timeout_s=60)

    def _has_replica(self, port: int) -> bool:
        with suppress(redis.RedisError), self._client(port, PASSWORD) as client:
            found = client.info("replication")
            return bool(found["role"] == "master" and found.get("slave0", {}).get("state") == "online")
        return False

    def _is_master(self, port: int) -> bool:
        with suppress(redis.RedisError), self._client(port, PASSWORD) as client:
            return bool(client.info("replication")["role"] == "master")
        return False

    def _answers(self, port: int, password: str) -> bool:
        with suppress(redis.RedisError), self._client(port, password) as client:
            return bool(client.ping())
        return False

    def _client(self, port: int, password: str) -> redis.Redis:
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(self._tls.authority)} if self._tls else {}
        options: dict[str, Any] = {"decode_responses": True, "socket_timeout": 5, **tls}
        return redis.Redis(host="127.0.0.1", port=port, password=password, **options)

    def _port(self, port: int) -> str:
        """The lines of a configuration with the port and how it is spoken to."""
        if self._tls is None:
            return f"port {port}"
        return (
            f"port 0\ntls-port {port}\ntls-auth-clients no\ntls-replication yes\n"
            f"tls-ca-cert-file {self._tls.authority}\n"
            f"tls-cert-file {self._tls.certificate}\ntls-key-file {self._tls.key}"
        )


class SentinelBroker:
    """The same as a `brokers.Broker`: its fault is the master's, and over its next start another has become it."""

    kind = "sentinel"

    def __init__(self, directory: Path) -> None:
        self._servers = Sentinels(directory)
        self._down = 0
        self.environment = self._servers.environment

    @property
    def pid(self) -> int:
        return self._servers.master_pid

    def asked_by(self) -> Celery:
        """An application that can ask it."""
        app = Celery(broker=self._servers.url)
        app.conf.broker_transport_options = {
            "master_name": MASTER,
            "sentinel_kwargs": {"password": SENTINEL_PASSWORD},
        }
        return app

    def kill(self) -> None:
        self._down = self._servers.kill_master()

    def stop(self) -> None:
        self._down = self._servers.stop_master()

    def start(self) -> None:
        self._servers.await_failover(self._down)
        self._servers.bring_back(self._down)

    @contextmanager
    def taking_no_writes(self) -> Iterator[None]:
        """The master becomes a replica on order."""
        self._servers.fail_over()
        yield

    def end(self) -> None:
        self._servers.stop()


def _program_with_tls(directory: Path) -> Path:
    """Debian's redis-server, under the name by which its program knows what to be; the embedded Valkey has no TLS."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "redis-server"
    if not program.exists():
        program.symlink_to(REDIS_WITH_TLS)
    return program


def _is_complete(sentinel: redis.Redis) -> bool:
    """Whether it knows the others, and finds master and replica well."""
    master, replicas = _pairs(_answer(sentinel, "MASTER")), [_pairs(each) for each in _answer(sentinel, "REPLICAS")]
    states = [replica["flags"] for replica in replicas]
    return master["num-other-sentinels"] == "2" and master["flags"] == "master" and states == ["slave"]


def _answer(sentinel: Any, question: str) -> Any:
    return sentinel.execute_command("SENTINEL", question, MASTER)


def _pairs(answer: Any) -> dict[str, str]:
    """Older protocols have names and values in one list."""
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
