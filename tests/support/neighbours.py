"""The neighbours as published, each in an environment of its own, with this checkout in the predecessor's place."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.requirements import missing
from support.workers import until

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = CHECKOUT / "tests" / "contract" / "programs"
PIPELINE = ("market-data-pipeline==0.8.70", "asyncpg>=0.29,<1")  # asyncpg: what its TickReplayer imports
ORCHESTRATOR = ("market-data-orchestrator==0.8.95",)  # the newest that can be imported: 0.9.3 lacks a module


@dataclass
class Running:
    """A program of `programs` that runs; it prints a line of JSON for each thing that it has seen."""

    process: subprocess.Popen[str]
    output: Path
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """What it printed so far."""
        text = self.output.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def until_printed(self, key: str, *, timeout_s: float = 60) -> dict[str, Any]:
        """The first line that has this key."""
        until(lambda: any(key in line for line in self.lines()) or self.process.poll() is not None, timeout_s=timeout_s)
        assert any(key in line for line in self.lines()), self.log.read_text()
        return next(line for line in self.lines() if key in line)

    def finish(self, timeout_s: float = 60) -> list[dict[str, Any]]:
        """Have it end, which it does when its input does; all that it printed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(timeout_s) == 0, self.log.read_text()
        return self.lines()


@dataclass(frozen=True)
class Neighbour:
    """A virtual environment with a neighbour and this checkout."""

    python: Path
    directory: Path

    @contextmanager
    def running(self, program: str, *arguments: str, **environment: str) -> Iterator[Running]:
        """A program with these variables; killed at the end of the block if it has not ended."""
        output, log = (self.directory / f"{program}.{kind}" for kind in ("out", "log"))
        with output.open("w") as stdout, log.open("w") as stderr:
            process = subprocess.Popen(
                [self.python, PROGRAMS / f"{program}.py", *arguments],
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "MDS_HOME": str(self.directory / "home"), **environment},
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                text=True,
            )
        try:
            yield Running(process, output, log)
        finally:
            process.kill()
            process.communicate()

    def run(self, program: str, *arguments: str, **environment: str) -> list[dict[str, Any]]:
        """A program from start to end; what it printed."""
        with self.running(program, *arguments, **environment) as running:
            assert running.process.wait(60) == 0, running.log.read_text()
            return running.lines()


@pytest.fixture
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Neighbour:
    return Neighbour(environment(request, "pipeline", PIPELINE), tmp_path)


@pytest.fixture
def orchestrator(request: pytest.FixtureRequest, tmp_path: Path) -> Neighbour:
    return Neighbour(environment(request, "orchestrator", ORCHESTRATOR), tmp_path)


def environment(request: pytest.FixtureRequest, name: str, requirements: tuple[str, ...]) -> Path:
    """The interpreter of a virtual environment with these, made when there is none and kept in pytest's cache."""
    assert request.config.cache is not None
    home = request.config.cache.mkdir("contract") / name
    made = home / "made-from"
    recipe = "\n".join([*requirements, sys.version, (CHECKOUT / "pyproject.toml").read_text()])
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the suite runs in several processes
        if not made.exists() or made.read_text() != recipe:
            subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
            install(home, *requirements)
            # Second, in the place of the predecessor that the orchestrator asks for by its version.
            install(home, "--editable", str(CHECKOUT))
            made.write_text(recipe)
    return home / "bin" / "python"


def install(home: Path, *what: str) -> None:
    pip: list[str | Path] = [
        home / "bin" / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        *what,
    ]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode != 0:
        reason = f"pip install {' '.join(what)}: {done.stderr.strip().splitlines()[-1]}"
        missing(reason, done.stderr)
