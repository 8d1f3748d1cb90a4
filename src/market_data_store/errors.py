"""One tree of errors: everything that this package raises on purpose is a `MarketDataStoreError`.

Each message says what is wrong, which value, and what to do. A driver's error is chained as the cause.
"""

from __future__ import annotations

from dataclasses import dataclass

from market_data_store.causes import Cause

#: The table of dead letters. It is held like a dataset: the messages wait that need a letter.
LETTERS = "dead_letters"
#: The table of job runs. It is no dataset either, but what is old in it goes too.
JOB_RUNS = "job_runs"


class MarketDataStoreError(Exception):
    """The root of all errors that this package raises on purpose."""


class ConfigurationError(MarketDataStoreError):
    """A setting has a wrong value or is missing."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row or a message is refused: a sentence that quotes the value, and a pattern that does not."""

    text: str
    #: The same sentence with … for each value. Dead letters are counted by it, and anyone may see it.
    pattern: str

    @classmethod
    def of(cls, template: str, *values: str, **constants: object) -> Reason:
        """Make text and pattern from one template.

        `values` come from a message and fill the template's `{}`; the pattern has … instead. `constants` come from the
        code and fill each `{name}`, in the pattern too.
        """
        hidden = ["…"] * len(values)
        return cls(template.format(*values, **constants), template.format(*hidden, **constants))

    def at(self, place: str) -> Reason:
        """Return the reason with the name of a field or an argument in front."""
        return Reason(f"{place}: {self.text}", f"{place}: {self.pattern}")


class InvalidMessage(MarketDataStoreError, ValueError):
    """A message, or a call of `StoreClient.write`, is unusable as a whole (dataset unknown, rows not a list, ...).

    `pattern` is the reason with … for each value, or None if the error was made from a text.
    """

    def __init__(self, reason: str | Reason) -> None:
        super().__init__(reason if isinstance(reason, str) else reason.text)
        self.pattern = None if isinstance(reason, str) else reason.pattern


class InvalidRow(MarketDataStoreError, ValueError):
    """A row can never be written; the message names the field, its value and the remedy.

    `position` is the row's index in the call (0 for the first).
    """

    def __init__(self, reason: str, *, position: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position

    def __str__(self) -> str:
        return f"row {self.position}: {self.reason}"


class InvalidRead(MarketDataStoreError, ValueError):
    """What is to be read or exported does not exist or makes no sense; the message names the argument."""


class InvalidJobRun(MarketDataStoreError, ValueError):
    """The id or the status of a job's run is unknown."""


#: Classes of SQLSTATE of a server that is away. 57 is an administrator's: a server that shuts down, is down or starts
#: says several things in turn.
_AWAY = (None, "08", "57")
#: By SQLSTATE.
_CAUSES = {"25006": Cause.DATABASE_READ_ONLY, "53100": Cause.DATABASE_FULL}


class DatabaseUnavailable(MarketDataStoreError):
    """Postgres could not take the write for a transient reason (SQLSTATE 08, 40, 53, 55, 57, connection lost)."""

    @property
    def sqlstate_class(self) -> str | None:
        """The first two characters of the SQLSTATE; None for a connection that was lost without one."""
        sqlstate: str | None = getattr(self.__cause__, "sqlstate", None)
        return sqlstate[:2] if sqlstate else None

    @property
    def trouble(self) -> str:
        """What is wrong, for whoever counts how long it has been: `away`, the known cause, or the message."""
        if self.sqlstate_class in _AWAY:
            return "away"
        # The messages of the others name the statement, or the file.
        return self.known_cause.value if self.known_cause else str(self)

    @property
    def known_cause(self) -> Cause | None:
        """The cause of trouble that this is a sign of, if it is a sign of one."""
        if self.sqlstate_class in _AWAY:
            return Cause.DATABASE_DOWN
        return _CAUSES.get(getattr(self.__cause__, "sqlstate", None) or "")

    @property
    def is_away(self) -> bool:
        """Whether not even a connection could be made, so that it cannot be due to what was to be written."""
        # psycopg gives `pgconn` to the errors of connecting only.
        cause = self.__cause__
        return getattr(cause, "pgconn", None) is not None or type(cause).__name__ == "ConnectionTimeout"


class DatasetUnavailable(DatabaseUnavailable):
    """One dataset's table takes no row now, for a reason that is in the table; other datasets may go on.

    `reason` is the first line of Postgres's message, or a sentence of the store's own.
    """

    def __init__(self, dataset: str, sqlstate: str | None, reason: str) -> None:
        super().__init__(f"{dataset}: {reason}" + (f" (SQLSTATE {sqlstate})" if sqlstate else ""))
        self.dataset, self.sqlstate, self.reason = dataset, sqlstate, reason

    @property
    def sqlstate_class(self) -> str | None:
        """The first two characters of the SQLSTATE."""
        return self.sqlstate[:2] if self.sqlstate else None


class LettersUnavailable(DatasetUnavailable):
    """The table of dead letters takes no letter now; rows that need none are committed.

    `reason` is empty if none was tried.
    """

    def __init__(self, sqlstate: str | None = None, reason: str = "") -> None:
        super().__init__(LETTERS, sqlstate, reason)


class MessagesSuspected(DatabaseUnavailable):
    """Messages that are written together fail like in an outage, while other rows go in: each is to be tried alone."""


class MigrationFailed(MarketDataStoreError):
    """Postgres refused a step of a migration."""


class BrokerUnavailable(MarketDataStoreError):
    """The broker did not accept a message or did not answer; a `StoreClient` keeps the message and re-sends it."""


class Backpressure(MarketDataStoreError):
    """The queue is full, and no row of the call was accepted; wait and call again."""


class SpoolFull(Backpressure):
    """The producer's spool is full, and no row of the call was accepted; wait and call again, or raise its limit."""


class SpoolUnavailable(MarketDataStoreError):
    """The producer's spool cannot be used: locked by another process, not a spool, damaged, or the disk is full."""


class SpoolInUse(SpoolUnavailable):
    """The spool is locked by another process, or by another client of this process."""


class ServerStartError(MarketDataStoreError):
    """An embedded server did not start."""
