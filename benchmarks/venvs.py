"""Virtual environments of the peers, each made once and kept in ~/.cache (XDG_CACHE_HOME)."""

from __future__ import annotations

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

#: What each peer is, with the same Celery and psycopg as ours where it allows that.
REQUIREMENTS = {
    "executemany": [*_CELERY, _PSYCOPG],
    "sqlalchemy": [*_CELERY, _PSYCOPG, f"sqlalchemy=={version('sqlalchemy')}"],
    "batches": ["celery-batches==0.11", "celery[redis]", _PSYCOPG],
    "predecessor": ["market-data-store==0.6.73"],
}


def python_of(peer: str) -> str:
    """The interpreter of a peer's environment; raises `MarketDataStoreError` when it cannot be made."""
    requirements = REQUIREMENTS[peer]
    digest = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "market-data-store" / "benchmarks"
    directory = cache / f"{peer}-{digest}"
    complete = directory / "complete"
    if not complete.exists():
        shutil.rmtree(directory, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(directory)], peer)
        _run([str(directory / "bin" / "pip"), "install", "-q", *requirements], peer)
        complete.touch()
    return str(directory / "bin" / "python")


def _run(command: Sequence[str], peer: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        raise MarketDataStoreError(f"the environment of {peer} cannot be made: {reason}")
