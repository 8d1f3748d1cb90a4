"""The neighbours as published, each in an environment of its own, with this checkout in the predecessor's place."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.processes import PYTHON, Process, run
from support.requirements import missing
from support.waiting import wait_until

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = CHECKOUT / "tests" / "contract" / "programs"
PIPELINE = ("market-data-pipeline==0.8.70", "asyncpg>=0.29,<1")  # asyncpg: what its TickReplayer imports
ORCHESTRATOR = ("market-data-orchestrator==0.8.95",)  # the newest that can be imported: 0.9.3 lacks a module


class Running(Process):
    """A program of `programs` that runs; it prints a line of JSON for each thing that it has seen."""

    def printed(self) -> list[dict[str, Any]]:
        """What it printed so far."""
        return [json.loads(line) for line in self.lines()]

    def wait_until_printed(self, key: str, *, timeout_s: float = 60) -> dict[str, Any]:
        """The first line that has this key."""
        wait_until(
            lambda: any(key in line for line in self.printed()) or not self.is_running,
            lambda: self.said(key),
            timeout_s=timeout_s,
        )
        assert any(key in line for line in self.printed()), self.said(key)
        return next(line for line in self.printed() if key in line)

    def finish(self, timeout_s: float = 60) -> list[dict[str, Any]]:
        """Have it end, which it does when its input does; all that it printed."""
        self.close_input()
        assert self.wait(timeout_s) == 0, self.said("a clean end")
        return self.printed()


@dataclass(frozen=True)
class Neighbour:
    """A virtual environment with a neighbour and this checkout."""

    python: Path
    directory: Path

    @contextmanager
    def running(self, program: str, *arguments: str, **environment: str) -> Iterator[Running]:
        """A program with these variables; killed at the end of the block if it has not ended."""
        own = {"PATH": os.environ["PATH"], "MDS_HOME": str(self.directory / "home")}
        running = Running(
            self.python,
            PROGRAMS / f"{program}.py",
            *arguments,
            directory=self.directory,
            environment={**own, "PYTHONPATH": str(CHECKOUT / "src"), **environment},
            inherit=False,
            with_input=True,
            output_apart=True,
        )
        try:
            yield running
        finally:
            running.kill()

    def run(self, program: str, *arguments: str, **environment: str) -> list[dict[str, Any]]:
        """A program from start to end; what it printed."""
        with self.running(program, *arguments, **environment) as running:
            assert running.wait(60) == 0, running.said("a clean end")
            return running.printed()


@pytest.fixture
def pipeline(tmp_path: Path) -> Neighbour:
    return Neighbour(environment("pipeline", PIPELINE), tmp_path)


@pytest.fixture
def orchestrator(tmp_path: Path) -> Neighbour:
    return Neighbour(environment("orchestrator", ORCHESTRATOR), tmp_path)


def environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The interpreter of a virtual environment with these and with what this checkout requires.

    Made once and kept in ~/.cache (XDG_CACHE_HOME). It holds a copy of the checkout as well, for its dependencies and
    its version; what runs is the checkout itself, by PYTHONPATH.
    """
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    recipe = [*requirements, sys.version, project["version"], *project["dependencies"]]
    digest = hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "market-data-store" / "contract"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"{name}-{digest}"
    complete = home / "complete"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the suite runs in several processes
        if not complete.exists():
            made = run(PYTHON, "-m", "venv", "--clear", "--without-pip", home, directory=cache)
            assert made.returncode == 0, made
            install(home, *requirements)
            # Second, in the place of the predecessor that the orchestrator asks for by its version.
            install(home, str(CHECKOUT))
            complete.touch()
    return home / "bin" / "python"


def install(home: Path, *what: str) -> None:
    # Most of it is never imported, and so need not be compiled.
    pip = (PYTHON, "-m", "pip", "--python", home / "bin" / "python", "--disable-pip-version-check")
    # Not with the import path of the tests, on which it would find what is to be installed.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = run(
        *pip,
        *("install", "-q", "--no-compile", *what),
        directory=home,
        environment=own,
        inherit=False,
        timeout_s=600,
    )
    if done.returncode != 0:
        reason = f"pip install {' '.join(what)}: {done.stderr.strip().splitlines()[-1]}"
        missing(reason, done.stderr)
