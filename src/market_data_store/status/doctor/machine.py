"""Checks of this machine: Python, packages, the user, files that hold secrets, disks, spools."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from market_data_store.config import Settings
from market_data_store.status.doctor.disks import room_in
from market_data_store.status.doctor.finding import Finding, counted, error, ok, warning

PACKAGE = "market-data-store"
#: Free bytes that web and workers need in TMPDIR for their counts; deploy/compose.yaml gives 64 MB.
_COUNTS = 8 * 1024**2
#: Seconds after which messages of a spool look forgotten.
_FORGOTTEN_S = 3_600.0


def python() -> Iterator[Finding]:
    """Judge Python's version."""
    needed, running = str(metadata(PACKAGE)["Requires-Python"]), ".".join(map(str, sys.version_info[:3]))
    if running in SpecifierSet(needed):
        yield ok("machine.python", f"Python {running}")
    else:
        yield error("machine.python", f"Python is {running}", f"install the package with a Python {needed}")


def packages() -> Iterator[Finding]:
    """Judge the versions of the packages that the store needs."""
    check = "machine.packages"
    wrong = [line for each in requires(PACKAGE) or () if (line := _unmet(Requirement(each))) is not None]
    if wrong:
        for line in wrong:
            yield error(check, line, "pip install --upgrade market-data-store, in the environment of this command")
    else:
        yield ok(check, f"{PACKAGE} {version(PACKAGE)} has the packages that it needs")


def _unmet(needed: Requirement) -> str | None:
    if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
        return None
    try:
        found = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} is not installed"
    return (
        None
        if needed.specifier.contains(found, prereleases=True)
        else f"{needed.name} is {found}, not {needed.specifier}"
    )


def user() -> Iterator[Finding]:
    """Say whether this is root."""
    if os.geteuid() == 0:
        yield warning(
            "machine.user", "this runs as root, who can do more than the store needs", "use a user of its own"
        )
    else:
        yield ok("machine.user", f"runs as user {os.geteuid()}, not as root")


def files(home: Path) -> Iterator[Finding]:
    """Judge who may read the files that hold secrets."""
    check = "machine.files"
    known = [Path(".env"), home / "env", home / "passwords", *_spools(home)]
    shown = [path for path in known if path.is_file() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    for path in shown:
        yield warning(check, f"other users may read {path}, which holds secrets or rows", f"chmod go= {path}")
    if not shown:
        yield ok(check, "no file with secrets is open to others")


def disks(home: Path) -> Iterator[Finding]:
    """Judge the directories that processes write to."""
    temporary = Path(tempfile.gettempdir())
    yield _room(temporary, "TMPDIR", _COUNTS, _COUNTS)
    if home.exists():
        yield room_in(
            "machine.home", home, f"the disk of MDS_HOME={home}", "make room, or choose another with MDS_HOME"
        )


def _room(path: Path, variable: str, short: int, full: int) -> Finding:
    check = "machine.tmpdir"
    if not os.access(path, os.W_OK):
        return warning(
            check, f"{path} cannot be written: /metrics is incomplete", f"set {variable} to a directory that can"
        )
    remedy = f"make room, or choose another with {variable}"
    return room_in(check, path, f"the disk of {path}", remedy, short=short, full=full)


def spools(home: Path) -> Iterator[Finding]:
    """Say what waits in the spools of this machine, which `AsyncStoreClient` keeps in MDS_HOME."""
    check, kept = "machine.spools", [*_spools(home)]
    forgotten = 0
    for path in kept:
        age_s = time.time() - path.stat().st_mtime
        try:
            waiting = _waiting(path)
        except sqlite3.Error as damaged:
            forgotten += 1
            yield warning(check, f"the spool {path} cannot be read: {damaged}", "move it away, and keep it for support")
            continue
        if waiting and age_s > _FORGOTTEN_S:
            forgotten += 1
            yield warning(
                check,
                f"waiting in the spool {path} since {age_s / 3_600:.0f} h: {counted(waiting, 'message')}",
                "start the producer that wrote them: the next client with this spool sends them",
            )
    if not forgotten:
        yield ok(check, f"{counted(len(kept), 'spool')}, nothing forgotten")


def _spools(home: Path) -> Iterator[Path]:
    if (home / "spool").is_dir():
        yield from sorted(path for path in (home / "spool").glob("**/*") if path.is_file() and path.suffix == ".db")


def _waiting(path: Path) -> int:
    """Count the messages in a spool that a client may have open, and leave no file behind."""
    log = path.with_name(f"{path.name}-wal")
    mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"file:{path}?{mode}", uri=True, timeout=1.0)
    try:
        return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])
    finally:
        connection.close()


def machine(settings: Settings | None) -> Iterator[Finding]:
    """Yield all findings; without settings those that need none."""
    yield from python()
    yield from packages()
    yield from user()
    if settings is not None:
        yield from files(settings.home)
        yield from disks(settings.home)
        yield from spools(settings.home)
