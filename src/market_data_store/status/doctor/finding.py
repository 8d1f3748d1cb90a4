"""What a check found: how bad it is, in one sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: `error` stops rows, now or at the next fault; `warning` does not; `skipped` says that something could not be checked.
Severity = Literal["ok", "warning", "error", "skipped"]
_ORDER: tuple[Severity, ...] = ("ok", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check."""

    #: The check's name, `family.check`; docs/doctor.md has each.
    check: str
    severity: Severity
    message: str
    #: What to do, with the variable, the table or the command; empty where nothing is wrong.
    remedy: str = ""

    def __str__(self) -> str:
        """Return message and remedy in one line."""
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


def ok(check: str, message: str) -> Finding:
    """Make the finding of a check that has found nothing wrong."""
    return Finding(check, "ok", message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Make the finding of something that does not stop rows."""
    return Finding(check, "warning", message, remedy)


def error(check: str, message: str, remedy: str) -> Finding:
    """Make the finding of something that stops rows or loses them."""
    return Finding(check, "error", message, remedy)


def skipped(check: str, why: str) -> Finding:
    """Make the finding of a check that could not run."""
    return Finding(check, "skipped", f"skipped: {why}")


def counted(number: int, noun: str) -> str:
    """Return a number of things: `1 worker`, `2 workers`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the worst severity among the findings, without those that were skipped: ok, warning or error."""
    return max((each.severity for each in findings if each.severity in _ORDER), key=_ORDER.index, default="ok")
