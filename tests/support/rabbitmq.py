"""A RabbitMQ broker for tests: Debian's `rabbitmq-server` as processes of one's own, beside any that runs already.

Everything that RabbitMQ keeps (queues, logs, cookie) lies in one directory, every port is a free one on 127.0.0.1.
On Linux broker and port mapper end with the process that started them; start them from its main thread.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import TimeoutExpired

import amqp

from support.ports import free_ports
from support.processes import Process, run
from support.waiting import wait_until

# Not the one in /usr/sbin: it changes to the user `rabbitmq`, who cannot write to a test's directory.
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_CONTROL = _SERVER.with_name("rabbitmqctl")
#: Users besides `guest`, each with a password and with what they may configure, write and read.
USERS: dict[str, tuple[str, str, str, str]] = {}
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0


def available() -> bool:
    """Whether RabbitMQ and Erlang's port mapper are installed."""
    return _SERVER.exists() and shutil.which("epmd") is not None


class RabbitMQ:
    """A broker that keeps URL, ports and durable queues over `stop` or `kill` and another `start`."""

    def __init__(self, directory: Path, *virtual_hosts: str) -> None:
        """With these virtual hosts besides `/`."""
        self._directory = directory
        self._directory.mkdir(parents=True, exist_ok=True)
        self._virtual_hosts = virtual_hosts
        self._port, self._epmd_port, self._distribution_port = free_ports(3)
        self._epmd: Process | None = None
        self._broker: Process | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"

    @property
    def pid(self) -> int:
        """Process id of the broker (the Erlang VM)."""
        assert self._broker is not None, "the broker has not been started"
        return self._broker.pid

    def start(self) -> None:
        """Start the broker and wait until it takes connections; about 5 s."""
        if self._virtual_hosts or USERS:  # each time, for the directory may have been lost
            definitions, configuration = (self._directory / name for name in ("definitions.json", "rabbitmq.conf"))
            definitions.write_text(json.dumps(_definitions("/", *self._virtual_hosts)))
            configuration.write_text(f"load_definitions = {definitions}\n")
        # Erlang starts a port mapper itself where it finds none; that one is a daemon and would outlive the tests.
        self._epmd = self._launch("epmd", "epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
        self._wait_for(self._epmd, self._port_mapper_answers)
        # -noinput belongs to RABBITMQ_ALLOW_INPUT, see _environment.
        self._broker = self._launch("output", str(_SERVER), "-noinput")
        self._wait_for(self._broker, self._broker_answers)

    def stop(self) -> None:
        """Shut the broker down as a service would; idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a crash would; idempotent."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop, then start."""
        self.stop()
        self.start()

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl ARGUMENTS` prints."""
        done = run(_CONTROL, *arguments, directory=self._directory, environment=self._environment, inherit=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def connections(self) -> list[str]:
        """The names that its open connections give themselves, in quotation marks and between others' properties."""
        return self.control("-q", "list_connections", "client_properties").splitlines()[1:]

    def _end(self, number: signal.Signals) -> None:
        # The broker first: it signs off with the port mapper.
        if self._broker is not None and self._broker.is_running:
            self._broker.send_signal(number)
            with suppress(TimeoutExpired):
                self._broker.wait(_STOP_TIMEOUT_S)
        for process in (self._broker, self._epmd):
            if process is not None:
                process.kill()

    def _wait_for(self, process: Process, answers: Callable[[], bool]) -> None:
        wait_until(lambda: answers() or not process.is_running, process.said, timeout_s=_START_TIMEOUT_S)
        assert process.is_running, process.said("RabbitMQ's start")

    def _port_mapper_answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._epmd_port), timeout=1):
                return True
        except OSError:
            return False

    def _broker_answers(self) -> bool:
        try:
            with amqp.Connection(f"127.0.0.1:{self._port}", userid="guest", password="guest", connect_timeout=2):
                return True
        except (OSError, amqp.AMQPError):
            return False

    def _launch(self, name: str, *command: str) -> Process:
        return Process(*command, directory=self._directory, environment=self._environment, inherit=False, name=name)

    @property
    def _environment(self) -> dict[str, str]:
        directory = str(self._directory)
        return {
            "PATH": os.defpath,
            "HOME": directory,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            # Without it the script would stay as the parent of the broker, and kill -9 would only hit the script.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_CONF_ENV_FILE": f"{directory}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/enabled_plugins",
            "RABBITMQ_LOG_BASE": f"{directory}/log",
            "RABBITMQ_MNESIA_BASE": f"{directory}/mnesia",
            "RABBITMQ_NODENAME": f"mds{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_PID_FILE": f"{directory}/pid",
            # Two schedulers: by default there is one for each core, in every broker of a test run.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
        }


def _definitions(*virtual_hosts: str) -> dict[str, object]:
    """For RabbitMQ to begin with: these hosts, its usual user, who would be missing otherwise, and the others."""
    everything = ("guest", ".*", ".*", ".*")
    return {
        "users": [
            _user("guest", "guest", "administrator"),
            *(_user(name, password) for name, (password, *_) in USERS.items()),
        ],
        "vhosts": [{"name": host} for host in virtual_hosts],
        "permissions": [
            {"user": name, "vhost": host, "configure": configure, "write": write, "read": read}
            for host in virtual_hosts
            for name, (_, configure, write, read) in {"guest": everything, **USERS}.items()
        ],
    }


def _user(name: str, password: str, *tags: str) -> dict[str, object]:
    salt = os.urandom(4)
    hashed = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    algorithm = "rabbit_password_hashing_sha256"
    return {"name": name, "password_hash": hashed, "hashing_algorithm": algorithm, "tags": [*tags]}


@contextmanager
def rabbitmq(directory: Path, *virtual_hosts: str) -> Iterator[RabbitMQ]:
    """A running broker, gone with its port mapper at the end of the block."""
    broker = RabbitMQ(directory, *virtual_hosts)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
