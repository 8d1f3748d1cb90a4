"""Virtual environments besides the running one, each made once and kept in ~/.cache (XDG_CACHE_HOME)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from market_data_store.errors import MarketDataStoreError

_CELERY = [f"celery[redis]=={version('celery')}", f"kombu=={version('kombu')}"]
_PSYCOPG = f"psycopg[binary]=={version('psycopg')}"

#: Number of most recently used environments of one name that are kept; each takes about 400 MB.
_KEPT = 6

#: The packages of each peer, with the same Celery and psycopg as ours where the peer allows that.
REQUIREMENTS = {
    "executemany": [*_CELERY, _PSYCOPG],
    "sqlalchemy": [*_CELERY, _PSYCOPG, f"sqlalchemy=={version('sqlalchemy')}"],
    "batches": ["celery-batches==0.11", "celery[redis]", _PSYCOPG],
    "predecessor": ["market-data-store==0.6.73"],
}


def python_of(peer: str) -> str:
    """Return the interpreter of a peer's environment; raise `MarketDataStoreError` if it cannot be made."""
    return python_with(peer, REQUIREMENTS[peer], REQUIREMENTS[peer])


def python_with(name: str, key: Sequence[str], arguments: Sequence[str]) -> str:
    """Return the interpreter of an environment that was filled by `pip install` with these arguments.

    It is made once for each name and key. The key must include everything that decides the contents. Raises
    `MarketDataStoreError`.
    """
    digest = hashlib.sha256("\n".join([sys.version, *key]).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "market-data-store" / "benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    directory = cache / f"{name}-{digest}"
    complete = directory / "complete"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be making the same one
        if not complete.exists():
            shutil.rmtree(directory, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(directory)], name)
            _run([str(directory / "bin" / "pip"), "install", "-q", *arguments], name)
        complete.touch()
        _remove_oldest(cache, name)
    return str(directory / "bin" / "python")


def _remove_oldest(cache: Path, name: str) -> None:
    made = sorted(cache.glob(f"{name}-*/complete"), key=lambda path: path.stat().st_mtime, reverse=True)
    for complete in made[_KEPT:]:
        shutil.rmtree(complete.parent)


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        raise MarketDataStoreError(f"the environment of {name} cannot be made: {reason}")
