"""What the checks make of workers, monitor, queue and letters."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from market_data_core.telemetry import HealthStatus

from market_data_store.config import Settings
from market_data_store.coordinator.answers import WorkerAnswer
from market_data_store.coordinator.feedback import NO_WORKERS, FeedbackEvent
from market_data_store.coordinator.watermarks import HARD, OK, SOFT, LevelAndReason
from market_data_store.dead_letters.summary import ReasonCount
from market_data_store.postgres.schema import Revisions
from market_data_store.status.database import DatabaseStatus
from market_data_store.status.doctor.finding import worst
from market_data_store.status.doctor.processes import processes
from market_data_store.status.headline import Headline
from market_data_store.status.looks import Away, BackfillLooks, FeedbackStatus, Looks, QueueStatus
from market_data_store.status.sampler import Sample
from market_data_store.status.trouble import HeldStatus, Trouble

NOW = 1_700_000_000.0
AWAY = Away("the broker does not answer (ConnectionRefusedError)")
#: A worker of this version, and one before 0.5.
OURS, OLD = WorkerAnswer({}, 0.0, version=version("market-data-store")), WorkerAnswer({}, 0.0)


def told(age_s: float = 1.0, **outcomes: str) -> FeedbackStatus:
    event = FeedbackEvent.create("store.write", 0, 100, "ok", None).model_copy(update={"ts": NOW - age_s})
    return FeedbackStatus([event], outcomes)


def database(letters: int | None, *reasons: ReasonCount) -> DatabaseStatus:
    return DatabaseStatus(1.0, Revisions("0002", "0002"), 12.0, letters, reasons)


WELL = Looks(
    QueueStatus(7, 2, 0.5),
    ["celery@one"],
    database(0),
    told(),
    Trouble(),
    BackfillLooks(QueueStatus(0, 0, 0.5), ["celery@one"], told()),
    [OURS],
)


def sample(level: LevelAndReason = LevelAndReason(OK), **looks: Any) -> Sample:  # noqa: B008  # immutable
    health = HealthStatus(service="s", state="healthy", components=[], version="1", ts=NOW)
    return Sample(NOW, WELL._replace(**looks), level, level, health, Headline("ok", "ok", ""), 0.1, [])


def found(check: str, sample: Sample) -> tuple[str, str]:
    """The worst severity of a check, or `skipped`, and its lines."""
    findings = list(processes(Settings(), lambda _: None).checks[check](sample))
    assert findings
    severity = findings[0].severity if len(findings) == 1 else worst(findings)
    return severity, "\n".join(map(str, findings))


def test_all_is_well() -> None:
    checks = processes(Settings(), lambda _: None).checks
    assert {found(name, sample())[0] for name in checks} == {"ok"}


@pytest.mark.parametrize(
    ("check", "looks", "severity", "words"),
    [
        ("workers", {"workers": []}, "error", "no worker takes store.write; waiting: 7 messages; start one"),
        ("workers", {"workers": AWAY}, "skipped", "does not answer"),
        ("backfill_workers", {"backfill": WELL.backfill._replace(workers=[])}, "warning", "store.backfill"),
        (
            "backfill_workers",
            {"backfill": BackfillLooks(QueueStatus(1, 0, 0.5), [], None)},
            *("error", "waiting: 1 message;"),
        ),
        ("worker_versions", {"answers": [OURS, OLD, OLD]}, "warning", "2 of before 0.5"),
        ("worker_versions", {"answers": []}, "skipped", "no worker answers"),
        ("worker_troubles", {"trouble": Trouble(stalled_s=40.0)}, "error", "nothing was committed for 40 s"),
        ("worker_troubles", {"trouble": Trouble(workers=("1 of 2 is deaf",))}, "warning", "1 of 2 is deaf"),
        ("held", {"trouble": Trouble((HeldStatus("bars", 3, "42703", "no column"),))}, "error", "bars is held"),
        ("held", {"trouble": Trouble((HeldStatus("bars", 3),))}, "warning", "about to be tried"),
        ("held", {"queue": AWAY}, "skipped", "does not answer"),
        ("queue", {"queue": QueueStatus(7, 2, 0.5, malformed=2)}, "warning", "2 entries of the queues are not"),
        ("monitor", {"feedback": None}, "ok", "no stream"),
        ("monitor", {"feedback": FeedbackStatus([])}, "warning", "start `mds monitor`"),
        ("monitor", {"feedback": told(31.0)}, "warning", "the last event is 31 s old"),
        ("monitor", {"feedback": told(http="failed", redis="delivered")}, "warning", "delivered to http;"),
        ("letters", {"database": database(None)}, "skipped", "in time"),
        (
            "letters",
            {"database": database(3, ReasonCount("bars", "close: … is not a number", 2, NOW))},
            *("warning", "in stock: 3 dead letters, most of bars: close: … is not a number"),
        ),
    ],
)
def test_what_is_wrong(check: str, looks: dict[str, Any], severity: str, words: str) -> None:
    how_bad, line = found(check, sample(**looks))
    assert how_bad == severity
    assert words in line


@pytest.mark.parametrize(
    ("level", "severity"), [(LevelAndReason(HARD, NO_WORKERS), "error"), (LevelAndReason(SOFT), "warning")]
)
def test_a_level(level: LevelAndReason, severity: str) -> None:
    assert found("queue", sample(level))[0] == severity
