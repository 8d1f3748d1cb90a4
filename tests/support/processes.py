"""The launcher of every process that a test starts: its log, its signals and its end.

A process begins a session of its own, so that a signal to its group reaches what it started, and on Linux it ends with
the test process. It runs in the test's directory, where there is no `.env`.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import psutil

from market_data_store.local import end_with_parent
from support.waiting import wait_until

#: The interpreter of the tests, and the command that is installed beside it.
PYTHON = sys.executable
MDS = (str(Path(PYTHON).with_name("mds")),)
#: What a PaaS gives a process to end is 30 s.
END_S = 25.0

Part = str | Path
_NOTHING: Mapping[str, str] = MappingProxyType({})


#: With the option --least-rights: gives a command's variables the users of docs/least-rights.md, see `support.rights`.
variables_of: list[Callable[[Sequence[str], Mapping[str, str]], Mapping[str, str]]] = []


def inherited(variables: Mapping[str, str], command: Sequence[str] = ()) -> dict[str, str]:
    """The environment of the tests with their import path, their programs first, and these variables."""
    for change in variables_of:
        variables = change(command, variables)
    path = os.pathsep.join([str(Path(PYTHON).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}


def _identity(user: str | None) -> dict[str, Any]:
    """Options of `Popen` for a process of this user."""
    if user is None:
        return {}
    found = pwd.getpwnam(user)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


class Process:
    """A running program. `start` and `restart` run it again with the same log."""

    def __init__(
        self,
        *command: Part,
        directory: Path,
        environment: Mapping[str, str] = _NOTHING,
        inherit: bool = True,
        name: str = "",
        with_input: bool = False,
        output_apart: bool = False,
        user: str | None = None,
        start: bool = True,
    ) -> None:
        """`environment` is added to that of the tests, if they inherit it; `output_apart`: not in the log."""
        self.id = uuid4().hex[:12]
        self.command = [str(part) for part in command]
        self.directory = directory
        self.log = directory / f"{name or self.id}.log"
        self.output = directory / f"{name or self.id}.out" if output_apart else self.log
        self._environment = inherited(environment, self.command) if inherit else dict(environment)
        self._with_input = with_input
        self._identity = _identity(user)
        self._log_start = self._log_forgotten = 0
        if start:
            self.start()

    def start(self) -> None:
        with self.log.open("ab") as log, self.output.open("ab") as output:
            self._log_start = log.tell()
            self.popen = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.PIPE if self._with_input else subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),
                **self._identity,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    def text(self) -> str:
        """The log since the last start: an earlier "ready." must not pass for this one's."""
        return self._logged(self._log_start)

    def whole_text(self) -> str:
        """The log of all its starts."""
        return self._logged(self._log_forgotten)

    def _logged(self, since: int) -> str:
        with self.log.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def forget_log(self) -> None:
        """Leave what was logged so far out of `text` and `whole_text`."""
        self._log_start = self._log_forgotten = self.log.stat().st_size

    def lines(self) -> list[str]:
        """The complete lines of its output."""
        return self.output.read_text().split("\n")[:-1]

    def wait_for_text(self, text: str, *, timeout_s: float = 60.0) -> None:
        """Wait until the log has this; fails at once when the process has ended without."""
        wait_until(lambda: text in self.text() or not self.is_running, lambda: self.said(text), timeout_s=timeout_s)
        assert text in self.text(), self.said(text)

    def wait_for_line(self, number: int, *, timeout_s: float = 60.0) -> str:
        """Wait until its output has so many lines, and return the last of these."""
        wait_until(
            lambda: len(self.lines()) >= number or not self.is_running,
            lambda: self.said(f"{number} lines"),
            timeout_s=timeout_s,
        )
        lines = self.lines()
        assert len(lines) >= number, self.said(f"{number} lines")
        return lines[number - 1]

    def said(self, missed: str = "") -> str:
        """The end of the log, for the message of an assertion."""
        return f"{missed!r} missed in {self.log.name}, which ends with:\n{self.whole_text()[-10_000:]}"

    def descendants(self) -> list[psutil.Process]:
        """What it started, and what that has started."""
        return [*psutil.Process(self.pid).children(recursive=True)]

    def send_signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def wait(self, timeout_s: float = END_S) -> int:
        """The exit status, once it has ended."""
        return self.popen.wait(timeout_s)

    def close_input(self) -> None:
        """Close its standard input, at which some programs end."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()

    def end(self, timeout_s: float = END_S) -> None:
        """SIGTERM, after which it has to end by itself, and without an error."""
        self.popen.terminate()
        assert self.popen.wait(timeout_s) == 0, self.said("a clean end")

    def kill(self) -> None:
        """SIGKILL, also for all that it started; idempotent."""
        others = self.descendants() if self.is_running else []  # some begin sessions of their own
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # also when children have outlived the parent
        for other in others:
            with suppress(psutil.NoSuchProcess):
                other.kill()
        self.popen.wait(10)
        if self.popen.stdin is not None:
            self.popen.stdin.close()

    def restart(self, timeout_s: float = END_S) -> None:
        """SIGTERM, SIGKILL when that is not enough, and another start."""
        self.popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout_s)
        self.kill()
        self.start()


@contextmanager
def running(
    *command: Part,
    directory: Path,
    environment: Mapping[str, str] = _NOTHING,
    name: str = "",
    with_input: bool = False,
    user: str | None = None,
) -> Iterator[Process]:
    """A process for the length of a block, at whose end it is killed if it still runs."""
    process = Process(
        *command, directory=directory, environment=environment, name=name, with_input=with_input, user=user
    )
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def ending_cleanly(
    *command: Part, directory: Path, environment: Mapping[str, str] = _NOTHING, name: str = ""
) -> Iterator[Process]:
    """As `running`; a process that still runs at the end of the block has to end at SIGTERM, without an error."""
    with running(*command, directory=directory, environment=environment, name=name) as process:
        yield process
        if process.is_running:
            process.end()


def run(
    *command: Part,
    directory: Path,
    environment: Mapping[str, str] = _NOTHING,
    inherit: bool = True,
    text: str | None = None,
    user: str | None = None,
    timeout_s: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """A command from start to end, whatever its status; `text` is what it reads."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env=inherited(environment, [str(part) for part in command]) if inherit else dict(environment),
        stdin=subprocess.DEVNULL if text is None else None,
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        **_identity(user),
    )


def mds(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`mds ARGUMENTS` from start to end, with these variables."""
    return run(*MDS, *arguments, directory=directory, environment=variables)


@contextmanager
def frozen(server_pid: int) -> Iterator[None]:
    """A whole server stopped (SIGSTOP), each of its processes: it accepts connections and never answers."""
    postmaster = psutil.Process(server_pid)
    postmaster.suspend()  # first, so that it starts no more processes
    children = postmaster.children(recursive=True)
    for process in children:
        process.suspend()
    try:
        yield
    finally:
        for process in [*children, postmaster]:
            process.resume()
