"""Looks up the versions of lock files in databases of known vulnerabilities: `python .ci/audit.py FILE...`.

The first database that knows the packages decides. Exit status 0 means that it was asked about every version and knows
of no vulnerability; 1 that it knows one, or that it could not tell for some version; 3 that no database could be
reached, so that nothing was audited.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests
from packaging.version import Version
from pip_audit._service import (
    ConnectionError as NoConnection,
)
from pip_audit._service import (
    Dependency,
    OsvService,
    PyPIService,
    ResolvedDependency,
    SkippedDependency,
    VulnerabilityService,
)

#: A line such as `celery==5.7.0 \`, with the hashes in the lines below.
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
NOT_AUDITED = 3
#: Seconds that a database has for each answer.
TIMEOUT_S = 20


@dataclass
class Answers:
    """What a database said of the versions, up to the end or to the loss of the connection."""

    clean: int = 0
    vulnerable: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    lost: bool = False


def pins(files: Iterable[Path]) -> dict[str, str]:
    """The version of each package in the lock files; those of two files must agree."""
    found: dict[str, str] = {}
    for file in files:
        for name, version in PIN.findall(file.read_text()):
            if found.setdefault(name, version) != version:
                raise SystemExit(f"{file}: {name} {version}, elsewhere {found[name]}; run `make lock`")
    if not found:
        raise SystemExit("no pinned version in the lock files")
    return found


def ask(database: VulnerabilityService, versions: Mapping[str, str]) -> Answers:
    """Look up each version in this database."""
    answers = Answers()
    asked: Iterable[Dependency] = [ResolvedDependency(name, Version(version)) for name, version in versions.items()]
    try:
        for package, known in database.query_all(iter(asked)):
            if isinstance(package, SkippedDependency):
                answers.unknown.append(package.name)
            elif known:
                ids = ", ".join(vulnerability.id for vulnerability in known)
                answers.vulnerable.append(f"{package.name} {versions[package.name]}: {ids}")
            else:
                answers.clean += 1
    except (NoConnection, requests.ConnectionError, requests.Timeout):
        answers.lost = True
    return answers


def audit(versions: Mapping[str, str], databases: Mapping[str, VulnerabilityService]) -> int:
    """Print the verdict in one line, or one for each package that is to be looked at; return the exit status."""
    unreachable = []
    for name, database in databases.items():
        answers = ask(database, versions)
        if not answers.clean and not answers.vulnerable:
            why = "cannot be reached" if answers.lost else f"knows none of the {len(versions)} packages"
            unreachable.append(f"{name} {why}")
            continue
        for line in answers.vulnerable:
            print(f"vulnerable: {line}")
        if answers.unknown:
            print(f"could not be audited: {', '.join(answers.unknown)} ({name} does not know them)")
        if answers.lost:
            print(f"could not be audited: the connection to {name} was lost")
        if answers.vulnerable or answers.unknown or answers.lost:
            return 1
        print(f"audited: {len(versions)} packages, no known vulnerability ({name})")
        return 0
    print(f"not audited: no database of advisories can be reached here ({'; '.join(unreachable)})")
    return NOT_AUDITED


if __name__ == "__main__":
    sys.exit(
        audit(
            pins(map(Path, sys.argv[1:])),
            {"PyPI": PyPIService(timeout=TIMEOUT_S), "OSV": OsvService(timeout=TIMEOUT_S)},
        )
    )
