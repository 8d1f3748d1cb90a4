"""A support bundle: a zip of what support asks for, without secrets and without rows."""

from __future__ import annotations

import json
import os
import platform
import sys
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from market_data_store.config import Settings, owned_files
from market_data_store.datasets import DATASETS
from market_data_store.errors import DatabaseUnavailable, MarketDataStoreError
from market_data_store.postgres.connection import connect
from market_data_store.postgres.found import stored_types
from market_data_store.postgres.server import bounded
from market_data_store.postgres.tables import dead_letters, job_runs
from market_data_store.status.doctor.finding import Finding
from market_data_store.status.doctor.masking import masked, secrets_of, without_secrets
from market_data_store.status.doctor.processes import answers_of
from market_data_store.status.document import document_of
from market_data_store.status.looks import FeedbackStatus
from market_data_store.status.sampler import Sample


def write(path: Path, report: Mapping[str, Any], settings: Settings | None, sample: Sample | None) -> list[str]:
    """Write the bundle for its owner only, and return the names of its files.

    `report` is doctor's JSON. Without settings, or a look at the parts, what needs them is left out. Raises
    `MarketDataStoreError` if the file cannot be written.
    """
    parts: dict[str, Any] = {"doctor.json": report, "packages.json": _packages(), "machine.json": _machine()}
    if settings is not None:
        parts["settings.json"] = masked(settings)
        parts["tables.json"] = _tables(settings.database_url)
    if settings is not None and sample is not None:
        parts["status.json"] = document_of(sample, settings)
        parts["workers.json"] = answers_of(sample)
        parts["events.json"] = _events(sample)
    secrets = [] if settings is None else secrets_of(settings)
    texts = {name: _json(without_secrets(msgspec.to_builtins(content), secrets)) for name, content in parts.items()}
    try:
        with os.fdopen(owned_files.open_private(path), "wb") as file:
            file.truncate()
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
                for name, text in texts.items():
                    bundle.writestr(name, text)
    except OSError as failed:
        raise MarketDataStoreError(f"cannot write {path}: {failed.strerror}; name another file") from failed
    return [*texts]


def report_of(findings: Sequence[Finding], result: str, ts: float, version: str) -> dict[str, Any]:
    """Return doctor's JSON; `ts` is in seconds since 1970."""
    return {
        "ts": ts,
        "version": version,
        "result": result,
        "findings": [
            {"check": each.check, "severity": each.severity, "message": each.message, "remedy": each.remedy}
            for each in findings
        ],
    }


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


def _packages() -> dict[str, str]:
    return dict(sorted((each.metadata["Name"], each.version) for each in distributions()))


def _machine() -> dict[str, Any]:
    return {
        "python": sys.version,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "user": os.geteuid(),
    }


def _events(sample: Sample) -> list[Any]:
    feedback = sample.looks.feedback
    return [event.model_dump(mode="json") for event in feedback.events] if isinstance(feedback, FeedbackStatus) else []


def _tables(url: str) -> dict[str, Any]:
    """Return the columns of each table as they are, with their types, and no rows."""
    names = [dataset.table.name for dataset in DATASETS.values()] + [dead_letters.name, job_runs.name]
    try:
        with closing(connect(url)) as connection, bounded(connection):
            return {name: stored_types(connection, name) for name in names}
    except (DatabaseUnavailable, psycopg.Error) as failed:
        return {"error": str(failed).partition("\n")[0]}
