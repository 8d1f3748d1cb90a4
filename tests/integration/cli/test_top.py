"""`mds top` as people start it: in a terminal of a size of its own, in a pipe, and on another machine's page."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.processes import MDS, inherited, mds, running
from support.waiting import wait_until
from support.web import serving

only_redis = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
STATUS_TOKEN = "for-reading-only-0123"
_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9])")


class Terminal:
    """A pseudo-terminal with `mds top` in it: what it has shown so far, and its keyboard."""

    def __init__(self, directory: Path, *arguments: str, **variables: str) -> None:
        self._ours, self._its = pty.openpty()
        self.resize(24, 80)
        self.modes = termios.tcgetattr(self._its)
        self._said = b""
        environment = inherited({"TERM": "xterm-256color", "LANG": "C.UTF-8", **variables}, MDS)
        for name in ("COLUMNS", "LINES"):  # they would win over the size
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*MDS, "top", *arguments],
            cwd=directory,
            env=environment,
            stdin=self._its,
            stdout=self._its,
            stderr=self._its,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while given := os.read(self._ours, 65_536):
            self._said += given
            if b"the test is over" in given:
                return

    @property
    def said(self) -> str:
        return self._said.decode(errors="replace")

    def text(self, since: int = 0) -> str:
        """What it has shown, without the codes of colours and places."""
        return _CODES.sub("", self.said[since:])

    def wait_for(self, words: str, since: int = 0) -> None:
        wait_until(lambda: words in self.text(since), lambda: f"{words!r} in {self.text(since)[-3_000:]}", timeout_s=60)

    def widest(self, since: int) -> int:
        """The longest line of the newest complete screen."""
        screens = [_CODES.sub("", each) for each in self.said[since:].split("\x1b[H")[1:-1]]
        whole = [each for each in screens if "q ends" in each]
        return max(len(line.rstrip()) for line in whole[-1].splitlines()) if whole else 1_000

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def ended(self) -> int:
        """The exit status; the terminal is as it was."""
        status = self.process.wait(20)
        assert termios.tcgetattr(self._its) == self.modes, "it hears and shows keys as before"
        assert self.said.count("\x1b[?1049h") == self.said.count("\x1b[?1049l"), "the normal screen is back"
        assert self.said.rfind("\x1b[?25h") > self.said.rfind("\x1b[?25l"), "the cursor is back"
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.write(self._its, b"the test is over")
        self._reader.join()
        os.close(self._ours)
        os.close(self._its)


@contextmanager
def terminal(directory: Path, *arguments: str, **variables: str) -> Iterator[Terminal]:
    opened = Terminal(directory, *arguments, **variables)
    try:
        yield opened
    finally:
        opened.close()


@only_redis
def test_it_watches_the_servers_on_a_screen_until_q_or_ctrl_c(
    broker_url: str, database_url: str, tmp_path: Path
) -> None:
    servers = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    with terminal(tmp_path, **servers) as first:
        first.wait_for("q ends")
        for part in ("live", "backfill", "rows/s", "workers   0", "letters   0"):
            first.wait_for(part)
        before = len(first.said)
        first.resize(12, 60)
        wait_until(lambda: first.widest(before) <= 60, "it is drawn for the new size")
        first.press("x")  # no key of its own
        first.press("q")
        assert first.ended() == 0
    with terminal(tmp_path, "--interval", "600", **servers) as second:
        second.wait_for("q ends")
        second.press("\x03")  # the terminal makes SIGINT of it
        assert second.ended() == 0
        assert "Traceback" not in second.text()
        assert "ended by" not in second.text()


@only_redis
def test_it_watches_another_machines_page_and_waits_for_it_to_come_back(
    broker_url: str, database_url: str, tmp_path: Path
) -> None:
    """With the page's token, and without any server of its own."""
    servers = {"BROKER_URL": broker_url, "DATABASE_URL": database_url}
    token = {"MDS_STATUS_TOKEN": STATUS_TOKEN}
    with serving(tmp_path, **servers, **token) as web:
        refused = mds(tmp_path, "top", "--url", web.url)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == f"error: {web.url} wants a token: set MDS_STATUS_TOKEN to that of the web process\n"
        piped = (*MDS, "top", "--url", f"{web.url}/", "--interval", "0.2")
        with running(*piped, directory=tmp_path, environment=token) as process:
            process.wait_for_line(3)
            process.end()
            lines = process.text().splitlines()
        assert all(re.match(r"\d\d:\d\d:\d\dZ .*; live 0, backfill 0, rows/s ", line) for line in lines), lines
        with terminal(tmp_path, "--url", web.url, "--interval", "0.2", **token) as shown:
            shown.wait_for("q ends")
            web.process.send_signal(signal.SIGTERM)
            web.process.wait()
            shown.wait_for(f"{web.url} does not answer")
            assert shown.process.poll() is None
            shown.press("q")
            assert shown.ended() == 0


def test_a_wrong_address_is_one_line(tmp_path: Path) -> None:
    wrong = mds(tmp_path, "top", "--url", "store.example.com")
    assert wrong.returncode == 2
    assert "give that of the status page, such as http://host:8081" in wrong.stderr
    away = mds(tmp_path, "top", "--url", "http://u:s3cret@127.0.0.1:1/")
    assert (away.returncode, away.stderr.count("\n")) == (1, 1)
    assert "does not answer" in away.stderr
    assert "s3cret" not in away.stderr
