"""While `mds up` starts, it prints of its processes only what is wrong, and everything if the start fails."""

from __future__ import annotations

import pytest

from market_data_store.cli.output import Output, level_of

INFO = "2026-03-04T09:30:00.125Z INFO    worker celery.apps.worker: ready"
ERROR = "2026-03-04T09:30:00.125Z ERROR   worker celery.apps.worker: not ready"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (INFO, "info"),
        (ERROR, "error"),
        ("time=2026-03-04T09:30:00.125Z level=warning process=web", "warning"),
        ('{"time": "2026-03-04T09:30:00.125Z", "level": "debug"}', "debug"),
        ("Error: something foreign", ""),
        ("  File x", ""),
        ("[1]", ""),
    ],
)
def test_the_level_of_a_line(line: str, level: str) -> None:
    assert level_of(line) == level


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition(" | ")[2] for line in capsys.readouterr().out.splitlines()]


def test_only_what_is_wrong_is_shown_with_all_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    for line in (INFO, "  of the first", ERROR, "  of the second", INFO, "a foreign line"):
        output("worker", line)
    assert said(capsys) == [ERROR, "  of the second", "a foreign line"]
    output.ready()
    output("worker", INFO)
    assert said(capsys) == [INFO]


def test_a_start_that_fails_shows_what_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    for _ in range(2):
        output("web", INFO)
    output.failed()
    assert said(capsys) == [INFO, INFO]


def test_verbose_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    Output(verbose=True)("web", INFO)
    assert said(capsys) == [INFO]
