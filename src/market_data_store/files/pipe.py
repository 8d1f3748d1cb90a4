"""Gives DuckDB the text of a file that is packed, or in another encoding: as UTF-8, through a pipe with a name."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from market_data_store.errors import InvalidMessage
from market_data_store.files.opening import Opened


class Pipe:
    """A pipe with a name, which a thread fills."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._directory = tempfile.TemporaryDirectory(prefix="mds-load-")
        self.path = Path(self._directory.name) / "rows.csv"
        self._error: Exception | None = None

    def __enter__(self) -> Pipe:
        os.mkfifo(self.path, 0o600)
        self._thread = threading.Thread(target=self._run, name="file-feed", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # lets a thread go on that still waits for a reader
            os.close(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK))
        self._thread.join()
        self._directory.cleanup()

    def check(self) -> None:
        """Raise the error that ended the text too early, if there was one."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self.path.open("wb") as sink:
                self._copy(sink)
        except BrokenPipeError:
            pass
        except InvalidMessage as error:
            self._error = error

    def _copy(self, sink: IO[bytes]) -> None:
        if self._opened.encoding in ("utf-8", "utf-8-sig") and not self._opened.has_cr_lines:
            for part in self._opened.parts():
                sink.write(part)
            return
        for line in self._opened.lines():
            sink.write((line.rstrip("\r\n") + "\n").encode())
