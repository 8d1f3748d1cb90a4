"""docs/doctor.md lists each check of `mds doctor`, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.status.doctor import configured, machine
from market_data_store.status.doctor.admin import admin
from market_data_store.status.doctor.broker import broker, feedback
from market_data_store.status.doctor.examination import OF_RELEASE
from market_data_store.status.doctor.postgres import database
from market_data_store.status.doctor.processes import processes

DOCUMENT = Path(__file__).parents[4] / "docs/doctor.md"
#: Those that compare what several families have seen.
LAST = {"admin.same", "database.connections", "broker.connections", "redis.connections"}


def ignore(_: object) -> None:
    """What a family has seen is of no interest here."""


def of_families() -> set[str]:
    with_redis = Settings().model_copy(update={"broker_url": "redis://h"})
    with_rabbitmq = Settings().model_copy(update={"broker_url": "amqp://h"})
    families: list[Any] = [
        *(database(with_redis, ignore), admin(with_redis, ignore, is_release=False)),
        *(broker(app, with_redis, ignore), broker(app, with_rabbitmq, ignore)),
        *(feedback(with_redis, ignore), processes(with_redis, ignore)),
    ]
    return {f"{family.name}.{check}" for family in families for check in family.checks}


def alone(monkeypatch: pytest.MonkeyPatch, directory: Path) -> set[str]:
    monkeypatch.chdir(directory)
    found = Settings().model_copy(update={"home": directory})
    findings = [*configured.missing(found), *configured.secrets(found), *configured.stalled(found)]
    return {finding.check for finding in [*findings, *machine.machine(found)]} | {configured.CHECK}


def test_the_document_lists_every_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = DOCUMENT.read_text().split("## The checks")[1].split("##")[0].splitlines()
    listed = {name for line in lines for name in re.findall(r"`(\w+\.\w+)`", line.split(" | ")[0])}
    every = of_families() | alone(monkeypatch, tmp_path) | LAST
    assert listed == every
    assert every >= OF_RELEASE
