"""A family of checks: one that fails, hangs or may not ask costs only its own findings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
from redis.exceptions import NoPermissionError

from market_data_store.errors import DatabaseUnavailable
from market_data_store.status.doctor import family
from market_data_store.status.doctor.family import Family, examined
from market_data_store.status.doctor.finding import Finding, error, ok, skipped, warning, worst


def fine(_: object) -> Iterator[Finding]:
    yield ok("part.fine", "fine")


def broken(_: object) -> Iterator[Finding]:
    raise ZeroDivisionError("by zero")


def forbidden(_: object) -> Iterator[Finding]:
    raise NoPermissionError("no permissions to run the 'info' command")


def severities(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.severity) for finding in findings]


def test_a_check_that_fails_hides_nothing_of_the_others() -> None:
    checks = {"broken": broken, "forbidden": forbidden, "fine": fine}
    found = list(examined([Family("part", lambda: nullcontext(None), "", checks)]))
    assert severities(found) == [("part.broken", "error"), ("part.forbidden", "skipped"), ("part.fine", "ok")]
    assert "ZeroDivisionError" in found[0].message


def test_of_a_part_that_is_away_the_other_checks_are_skipped() -> None:
    @contextmanager
    def away() -> Iterator[None]:
        raise DatabaseUnavailable("cannot connect to postgresql://h/d: refused")
        yield

    checks = {"reachable": fine, "fine": fine}
    found = list(examined([Family("part", away, "check DATABASE_URL", checks)]))
    assert found == [
        error("part.reachable", "cannot connect to postgresql://h/d: refused", "check DATABASE_URL"),
        skipped("part.fine", "part.reachable has failed"),
    ]


def test_a_part_that_hangs_has_a_deadline_and_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "DEADLINE_S", 0.2)
    free = threading.Event()

    def hanging(_: object) -> Iterator[Finding]:
        free.wait(10)
        yield ok("part.hanging", "late")

    checks = {"first": lambda _: [ok("part.first", "seen")], "hanging": hanging, "fine": fine}
    found = list(
        examined(
            [
                Family("part", lambda: nullcontext(None), "look at it", checks),
                Family("other", lambda: nullcontext(None), "", {"fine": fine}),
            ]
        )
    )
    free.set()
    assert severities(found) == [
        *[("part.first", "ok"), ("part.hanging", "error"), ("part.fine", "skipped")],
        ("part.fine", "ok"),  # of the other family
    ]
    assert "no answer within" in found[1].message


def test_only_the_checks_of_a_release_are_run() -> None:
    whole = Family("part", lambda: nullcontext(None), "", {"broken": broken, "fine": fine})
    assert severities(list(whole.only({"part.fine"}).findings())) == [("part.fine", "ok")]


def test_the_worst_decides_and_what_was_skipped_does_not() -> None:
    assert worst([]) == worst([skipped("a", "b")]) == "ok"
    assert worst([ok("a", "b"), warning("a", "b", "c"), skipped("a", "b")]) == "warning"
    assert worst([error("a", "b", "c"), warning("a", "b", "c")]) == "error"
    assert str(warning("a", "it leaks", "mend it")) == "it leaks; mend it"
