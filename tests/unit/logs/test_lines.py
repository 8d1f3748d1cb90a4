"""A record becomes one line, in each format with the same fields."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from market_data_store.logs.lines import FORMATS

OURS = "market_data_store.worker.database"


def record(message: str = "Postgres answers", *, logger: str = OURS, error: bool = False, **extra: Any) -> Any:
    made = logging.makeLogRecord(
        {"name": logger, "levelname": "WARNING", "msg": message, "args": (), "created": 1_700_000_000.25, **extra}
    )
    if error:
        try:
            raise ValueError("wrong\nin two lines")
        except ValueError:
            made.exc_info = sys.exc_info()
    return made


def line(form: str, *args: Any, **kwargs: Any) -> str:
    return FORMATS[form]("worker/1").format(record(*args, **kwargs))


def test_a_json_line_has_the_fields_and_those_of_extra() -> None:
    assert json.loads(line("json", event="trouble_over", lasted_s=4.0, path=logging)) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "process": "worker/1",
        "logger": OURS,
        "message": "Postgres answers",
        "event": "trouble_over",
        "lasted_s": 4.0,
        "path": str(logging),
    }


def test_logfmt_quotes_what_needs_it() -> None:
    assert line("logfmt", 'say "no"\nor a=b', event="x", empty="") == (
        f'time=2023-11-14T22:13:20.250Z level=warning process=worker/1 logger={OURS} message="say \\"no\\"\\nor a=b" '
        'event=x empty=""'
    )


def test_a_text_begins_with_time_and_level_and_indents_what_follows() -> None:
    said = line("text", "first\n2023-11-14T22:13:20.250Z ERROR forged", lasted_s=4.0)
    assert said == (
        f"2023-11-14T22:13:20.250Z WARNING worker/1 {OURS}: first lasted_s=4.0\n  2023-11-14T22:13:20.250Z ERROR forged"
    )


@pytest.mark.parametrize("form", ["json", "logfmt"])
def test_a_traceback_is_in_a_field_of_the_one_line(form: str) -> None:
    said = line(form, error=True)
    assert "\n" not in said
    assert "ValueError: wrong\\nin two lines" in said


@pytest.mark.parametrize("form", FORMATS)
def test_fields_of_other_loggers_are_left_out(form: str) -> None:
    """Celery's have the arguments of tasks."""
    assert "s3cret" not in line(form, logger="celery.app.trace", data={"args": "s3cret"})


@pytest.mark.parametrize("form", FORMATS)
def test_a_warning_of_python_is_one_line(form: str) -> None:
    assert "\n" not in line(form, "a.py:1: FutureWarning: gone\n  import a\n", logger="py.warnings")
