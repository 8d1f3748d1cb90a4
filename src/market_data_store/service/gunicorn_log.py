"""gunicorn's log: its lines are lines of the web process, in the one format."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]


class Log(Logger):
    """gunicorn's own, whose lines go where those of the application go; with `--error-logfile` into that file."""

    def setup(self, cfg: Any) -> None:
        """Set up; called at the start, and when gunicorn reads its settings anew."""
        super().setup(cfg)
        for log, output in ((self.error_log, cfg.errorlog), (self.access_log, cfg.accesslog)):
            if output == "-":
                log.handlers.clear()
                log.propagate = True
                log.setLevel(logging.NOTSET)
