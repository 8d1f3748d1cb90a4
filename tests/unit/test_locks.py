"""The lock files pin what pyproject.toml asks for, with hashes. `make lock` renews them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
RUNTIME = PROJECT["project"]["dependencies"]
BUILDING = PROJECT["build-system"]["requires"]
LOCKS = {
    ".ci/requirements.lock": [*RUNTIME, *EXTRAS["local"], *EXTRAS["dev"], *BUILDING],
    "deploy/requirements.lock": [*RUNTIME, *EXTRAS["traces"]],
    "deploy/build.lock": BUILDING,
}
#: What the lock files are made for, whatever runs this test.
TARGET = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux", "extra": ""}
PACKAGE = re.compile(r"([a-z0-9][a-z0-9-]*)==([\w.+!-]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")

each_lock = pytest.mark.parametrize("lock", LOCKS)


def pinned(lock: str) -> dict[str, str]:
    return {name: version for name, version, _ in PACKAGE.findall((ROOT / lock).read_text())}


@each_lock
def test_a_lock_file_has_names_versions_and_hashes_and_nothing_else(lock: str) -> None:
    rest = PACKAGE.sub("", (ROOT / lock).read_text())
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert "/" not in rest, "neither an index nor a path of the machine that made it"
    assert pinned(lock)


@each_lock
def test_a_lock_file_has_what_pyproject_toml_asks_for(lock: str) -> None:
    pins = pinned(lock)
    for requirement in map(Requirement, LOCKS[lock]):
        if requirement.marker is None or requirement.marker.evaluate(TARGET):
            version = pins.get(canonicalize_name(requirement.name))
            assert version, f"{lock} has no {requirement.name}; run `make lock`"
            assert version in requirement.specifier, f"{lock} has {requirement.name} {version}; run `make lock`"


@each_lock
def test_what_is_deployed_is_what_was_tested(lock: str) -> None:
    assert pinned(lock).items() <= pinned(".ci/requirements.lock").items(), "run `make lock`"


def test_the_image_has_no_tools_of_development() -> None:
    tools = {canonicalize_name(Requirement(text).name) for text in [*EXTRAS["local"], *EXTRAS["dev"], *BUILDING]}
    needed = {canonicalize_name(Requirement(text).name) for text in [*RUNTIME, *EXTRAS["traces"]]}
    # Celery, psycopg, Flask and Prometheus's client ask for packaging, too.
    assert tools & pinned("deploy/requirements.lock").keys() <= needed | {"packaging", "pyyaml"}
