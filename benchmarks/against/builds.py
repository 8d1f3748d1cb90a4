"""A version of this package, installed from its files into a virtual environment of its own.

Both versions that are compared are built alike, so that neither has an editable install, or other third-party
packages, in its favour: those are of the running environment's versions, as far as a version's own pyproject.toml
allows that.
"""

from __future__ import annotations

import re
import shlex
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import processes
from benchmarks.against.trees import unpack_commit, unpack_working_tree
from benchmarks.processes import ROOT
from benchmarks.venvs import python_with
from market_data_store.errors import MarketDataStoreError

_PACKAGE = "market-data-store"
#: Where tables were an extra; pip only warns of an extra that a version does not have.
_EXTRA = "arrow"
_PACKAGES = """
import json
from importlib.metadata import distributions
print(json.dumps({distribution.name: distribution.version for distribution in distributions()}))
"""


@dataclass(frozen=True, slots=True)
class Build:
    """An installed version."""

    #: Its interpreter.
    python: str
    #: Arguments of `python -m` for its worker, as its own Procfile has them.
    worker: tuple[str, ...]

    @property
    def mds(self) -> str:
        """Its command."""
        return str(Path(self.python).with_name("mds"))

    def migrate(self, database_url: str) -> None:
        """Bring a database to this version's schema."""
        with tempfile.TemporaryDirectory() as directory:  # no `.env` there
            command = [self.python, "-m", "market_data_store", "migrate"]
            processes.output(command, processes.environment(DATABASE_URL=database_url), cwd=Path(directory))

    def packages(self) -> dict[str, str]:
        """The third-party packages that it runs with, and their versions."""
        found = processes.answer([self.python, "-c", _PACKAGES], processes.environment())
        return {canonicalize_name(name): version for name, version in found.items() if name != _PACKAGE}


def build_commit(commit: str) -> Build:
    """Install a commit; raises `MarketDataStoreError`, in one line when the repository does not have it."""
    with tempfile.TemporaryDirectory() as files:
        return _install(Path(files), unpack_commit(ROOT, commit, Path(files)))


def build_working_tree() -> Build:
    """Install the working tree as it is now."""
    with tempfile.TemporaryDirectory() as files:
        return _install(Path(files), unpack_working_tree(ROOT, Path(files)))


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Packages whose versions differ; "none" where one of them has no such package."""
    names = sorted(one.keys() | other.keys())
    pairs = {name: (one.get(name, "none"), other.get(name, "none")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def constraints(requirements: list[str], running: Mapping[str, str]) -> list[str]:
    """Have pip take the running versions, but for packages of which the requirements want others."""
    refused = set()
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        if name in running and not requirement.specifier.contains(running[name], prereleases=True):
            refused.add(name)
    return [f"{name}=={version}" for name, version in sorted(running.items()) if name not in refused]


def worker_arguments(procfile: str) -> tuple[str, ...]:
    """The arguments of `python -m` for a Procfile's worker, with two processes; raises `MarketDataStoreError`."""
    line = re.search(r"^worker: *(celery .*)$", procfile, re.MULTILINE)
    if line is None:
        raise MarketDataStoreError("its Procfile has no worker that is a `celery` command")
    return (*shlex.split(line[1]), "--concurrency=2")


def _install(files: Path, contents: str) -> Build:
    project = tomllib.loads((files / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project.get("optional-dependencies", {}).get(_EXTRA, ())]
    running: dict[str, str] = {canonicalize_name(d.name): d.version for d in distributions() if d.name != _PACKAGE}
    lines = constraints(wanted, running)
    listed = files / "constraints.txt"
    listed.write_text("\n".join(lines))
    arguments = ["--constraint", str(listed), f"{files}[{_EXTRA}]"]
    python = python_with("version", [contents, *lines], arguments)
    return Build(python, worker_arguments((files / "Procfile").read_text()))
