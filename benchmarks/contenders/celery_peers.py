"""The peers that are Celery applications, as people would write them without this package."""

from __future__ import annotations

from benchmarks.stations import Application
from benchmarks.venvs import python_of

_OPTIONS = ("worker", "--concurrency=2", "--loglevel=INFO", "--without-gossip", "--without-mingle")


def executemany() -> Application:
    """Return a plain task with psycopg's executemany."""
    return _application("Celery + executemany", "executemany", "executemany")


def sqlalchemy_upsert() -> Application:
    """Return a plain task with SQLAlchemy's upsert."""
    return _application("Celery + SQLAlchemy", "sqlalchemy", "sqlalchemy_upsert")


def batches(per_message: int) -> Application:
    """Return a celery-batches task with executemany."""
    return _application("celery-batches", "batches", "batches", ("ROWS_A_MESSAGE", str(per_message)))


def _application(name: str, peer: str, module: str, *environment: tuple[str, str]) -> Application:
    return Application(
        name=name,
        python=python_of(peer),
        worker=("celery", "-A", f"benchmarks.peers.{module}", *_OPTIONS),
        produce=("benchmarks.peers.produce",),
        queue="peer.write",
        environment=environment,
    )
