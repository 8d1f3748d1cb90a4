"""The log of this process: everything that it says goes to standard error, line by line, in one format.

In a format for programs (`json`, `logfmt`) that includes what is printed: to `sys.stdout`, which is INFO, and to
`sys.stderr`, which is WARNING, or ERROR if it begins with `error: `. Only what C code prints, such as the interpreter's
last words, has no format.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from types import MappingProxyType, TracebackType

from market_data_store.logs.lines import FORMATS, Line, Text

#: By the value of MDS_LOG_LEVEL.
LEVELS = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
)
#: Loggers that say nothing below a warning, whatever level is asked for. httpx logs the URL of each request, and
#: httpcore the headers of the answers, which may repeat it: they hold what a URL of the settings holds. Celery's pool
#: logs messages with their rows.
_SECRETIVE = ("httpx", "httpcore", "celery.pool")
#: Loggers that say at INFO what helps no one.
_TALKATIVE = ("alembic",)
_STDERR = 2
_PRINTED = logging.getLogger("stdout")
_ERRORS = logging.getLogger("stderr")
_ERROR = "error: "


class _Stderr(logging.Handler):
    """Writes each line at once: the processes of a pool share the pipe, and a signal may come in the middle."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; if nobody reads any more, do nothing."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001  # the text and its values do not fit together: a bug, and not of this process's work
            self.handleError(record)
            return
        write(text)


class _Printed(io.TextIOBase):
    """Stands for a stream of the process, and logs each line that is printed to it."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, logger: logging.Logger, level: int, descriptor: int) -> None:
        self._logger = logger
        self._level = level
        self._descriptor = descriptor
        self._begun = threading.local()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("write() needs a str")
        *lines, self._begun.line = f"{getattr(self._begun, 'line', '')}{text}".split("\n")
        for line in filter(str.strip, lines):
            is_error = line.startswith(_ERROR)
            level = logging.ERROR if is_error else self._level
            self._logger.log(level, "%s", " ".join(line.removeprefix(_ERROR).split()))
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line is written when it is complete."""


class _State:
    """How this process logs; None until `begin`."""

    line: Line | None = None


def begin(process: str, form: str = "text", level: str = "info") -> None:
    """Log as this process; may be called again. A form or level that does not exist is `text` or `info`."""
    line = _State.line = FORMATS.get(form, Text)(process)
    handler = _Stderr()
    handler.setFormatter(line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS.get(level, logging.INFO))
    for name in _SECRETIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET if root.level == logging.DEBUG else logging.WARNING)
    logging.captureWarnings(True)
    _hook_last_words()
    if is_for_programs():
        sys.stdout = _Printed(_PRINTED, logging.INFO, 1)
        sys.stderr = _Printed(_ERRORS, logging.WARNING, _STDERR)


def is_for_programs() -> bool:
    """Whether the lines of this process are for programs, so that nothing may be printed beside them."""
    return _State.line is not None and not isinstance(_State.line, Text)


def rename(process: str) -> None:
    """Change the name of this process, as a child of a pool does."""
    if _State.line is not None:
        _State.line.process = process


def at_signal(text: str) -> None:
    """Log a text at INFO from a signal's handler, where no lock may be waited for."""
    if _State.line is not None and logging.getLogger(__name__).isEnabledFor(logging.INFO):
        write(_State.line.format(logging.LogRecord(__name__, logging.INFO, "", 0, text, None, None)))


def write(text: str) -> None:
    """Write a line to standard error; if nobody reads any more, do nothing."""
    rest = f"{text}\n".encode(errors="backslashreplace")
    try:
        while rest:
            rest = rest[os.write(_STDERR, rest) :]
    except OSError:
        pass


def _hook_last_words() -> None:
    """Log what Python would print of an error that nothing has handled."""
    logger = logging.getLogger(__name__)
    others = sys.unraisablehook if sys.unraisablehook is not sys.__unraisablehook__ else None

    def ends(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            logger.error("Ended by Ctrl-C")
            return
        logger.critical("The process ends: %s", kind.__name__, exc_info=(kind, error, traceback))

    def thread_ends(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_type is SystemExit or arguments.exc_value is None:
            return
        thread = arguments.thread.name if arguments.thread else "?"
        error = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        logger.error("The thread %s ends: %s", thread, arguments.exc_type.__name__, exc_info=error)

    def unraisable(arguments: sys.UnraisableHookArgs) -> None:
        if others is not None and isinstance(arguments.exc_value, KeyboardInterrupt):
            others(arguments)
        elif arguments.exc_value is not None:
            error = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
            logger.error("An error in %s was ignored", arguments.err_msg or "a destructor", exc_info=error)

    sys.excepthook, threading.excepthook, sys.unraisablehook = ends, thread_ends, unraisable
