"""How a record of the log becomes a line: as text for people, or as JSON or logfmt for programs.

The fields are the same in all three: `time` (UTC), `level`, `process` (`worker`, or `worker/2` for its second pool
process), `logger`, `message`, what a record of the store's own loggers has in `extra`, and `traceback`.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

#: The loggers whose records may have fields of their own. Those of Celery hold arguments and results of tasks.
_OURS = "market_data_store"
#: What every record has.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: What a value of logfmt may be made of without quotes.
_PLAIN = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")
#: Python's logger for warnings, each of which has its line of code below it.
WARNINGS = "py.warnings"


class Line(logging.Formatter):
    """Formats the records of a process, whose name it adds."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the fields of a record, in the order of the line."""
        message = record.getMessage()
        return {
            "time": _time(record),
            "level": record.levelname.lower(),
            "process": self.process,
            "logger": record.name,
            "message": " ".join(message.split()) if record.name == WARNINGS else message,
            **_own(record),
            **self._traceback(record),
        }

    def _traceback(self, record: logging.LogRecord) -> dict[str, str]:
        # Celery makes exc_info of the pool's errors, whose traceback is a text.
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        parts += [self.formatStack(record.stack_info)] if record.stack_info else []
        return {"traceback": "\n".join(parts)} if parts else {}


class Json(Line):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a value that JSON has not becomes its text."""
        return json.dumps(self.fields(record), default=str)


class Logfmt(Line):
    """`key=value` pairs; a value with spaces is quoted, and escaped as in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return " ".join(f"{name}={_quoted(value)}" for name, value in self.fields(record).items())


class Text(Line):
    """Time, level, process, logger and message, then the other fields.

    Further lines of a message and tracebacks are indented: a line that begins with a time is a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines."""
        fields = self.fields(record)
        head = f"{fields.pop('time')} {fields.pop('level').upper():7} {fields.pop('process')} {fields.pop('logger')}:"
        lines: list[str] = [*fields.pop("message").split("\n"), *fields.pop("traceback", "").splitlines()]
        others = "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        return "\n  ".join([f"{head} {lines[0]}{others}", *lines[1:]])


#: By the value of MDS_LOG_FORMAT.
FORMATS = MappingProxyType({"text": Text, "json": Json, "logfmt": Logfmt})


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _own(record: logging.LogRecord) -> dict[str, Any]:
    if record.name.partition(".")[0] != _OURS:
        return {}
    return {name: value for name, value in vars(record).items() if name not in _USUAL}


def _quoted(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
