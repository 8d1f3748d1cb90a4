"""Keeps rows on the producer's disk, in an SQLite file, until they are safe elsewhere.

When `append` returns, the rows survive the end of the process: the operating system has SQLite's write-ahead log. The
log is not forced to the disk at each call (`synchronous=NORMAL`), so a power cut or a crash of the operating system can
lose the last seconds before it; it damages nothing.

The file belongs to one process at a time, which holds a lock on a file beside it (`PATH.lock`). The kernel releases the
lock when the process ends, however it ends. The `outbox` decides what to keep and for how long.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from market_data_store.config.owned_files import open_private, require_own
from market_data_store.errors import SpoolFull, SpoolInUse, SpoolUnavailable
from market_data_store.producer.messages import Message, Placement

#: "mdsp": tells a spool from any other SQLite file.
_APPLICATION_ID = 0x6D647370
#: The version of the tables below; a file of another version is refused.
_FORMAT = 1
_TABLES = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL,
    dataset TEXT NOT NULL,
    defaults BLOB NOT NULL,
    columnar INTEGER NOT NULL,
    sent_at REAL,
    queue TEXT NOT NULL DEFAULT 'store.write'
);
CREATE TABLE parts (
    number INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    written_at REAL NOT NULL,
    rows INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX parts_of_message ON parts (message);
"""
#: Bytes that a part takes in the file besides its text, approximately: measured at one row a part.
_PART_BYTES = 64
#: The file of an empty spool is shrunk when it is opened or closed if it is larger than this.
_SHRINK_BYTES = 16 * 1024 * 1024

#: For a spool of version 0.4, which also reads and writes one that has the column.
_ADD_QUEUE = "ALTER TABLE messages ADD COLUMN queue TEXT NOT NULL DEFAULT 'store.write'"
_HAS_QUEUE = "SELECT count(*) FROM pragma_table_info('messages') WHERE name = 'queue'"
_ADD_MESSAGE = "INSERT INTO messages (task_id, dataset, defaults, columnar, queue) VALUES (?, ?, ?, ?, ?)"
_ADD_PART = "INSERT INTO parts (message, written_at, rows, body) VALUES (?, ?, ?, ?)"
_MARK_SENT = "UPDATE messages SET sent_at = ? WHERE number = ?"
_BODIES = "SELECT body FROM parts WHERE message = ? ORDER BY number"
_SIZE = f"SELECT coalesce(sum(length(body) + {_PART_BYTES}), 0) FROM parts WHERE message = ?"  # noqa: S608  # as below
_DROP_PARTS = "DELETE FROM parts WHERE message = ?"
_DROP_MESSAGE = "DELETE FROM messages WHERE number = ?"
_KEPT = f"""
SELECT m.number, m.task_id, m.dataset, m.defaults, m.columnar, m.sent_at, m.queue,
       sum(p.rows), sum(length(p.body)) + {_PART_BYTES} * count(*), max(p.written_at)
FROM messages m JOIN parts p ON p.message = m.number
GROUP BY m.number ORDER BY m.number
"""  # noqa: S608  # a number of our own


class Spool:
    """Messages in an SQLite file, in the order of writing. Not thread-safe.

    `max_bytes` bounds the text of the rows that are kept; the file is a few per cent larger. Raises `SpoolUnavailable`
    when the file cannot be used: another process has locked it, it is not a spool, it is damaged, or the disk is full.
    """

    def __init__(self, path: str | Path, max_bytes: int) -> None:
        self.path = Path(path).absolute()
        self.max_bytes = max_bytes
        self.bytes = 0
        self._pid = os.getpid()
        self._lock = self._locked()
        try:
            with self._usable():
                self._database = self._opened()
        except BaseException:
            os.close(self._lock)
            raise
        _open_spools.add(self)

    def append(self, placements: Sequence[Placement]) -> None:
        """Keep all of these parts, or raise `SpoolFull` or `SpoolUnavailable` and keep none."""
        if os.getpid() != self._pid:
            raise SpoolUnavailable(
                f"the spool {self.path} belongs to process {self._pid}; open another one after a fork"
            )
        size = sum(len(placement.part) + _PART_BYTES for placement in placements)
        if self.bytes + size > self.max_bytes:
            raise SpoolFull(
                f"the spool {self.path} is full: {self.bytes:,} bytes of rows are kept, {size:,} more would pass the "
                f"limit of {self.max_bytes:,}; wait until the store takes them, or raise spool_max_bytes"
            )
        added: list[Message] = []
        try:
            with self._transaction() as database:
                for message, rows, part, written_at in placements:
                    if message.number is None:
                        values = (message.task_id, message.dataset, message.defaults, message.columnar, message.queue)
                        message.number = database.execute(_ADD_MESSAGE, values).lastrowid
                        added.append(message)
                    database.execute(_ADD_PART, (message.number, written_at, rows, part))
        except BaseException:
            for message in added:
                message.number = None
            raise
        self.bytes += size

    def messages(self) -> list[Message]:
        """The kept messages, oldest first, without their rows, which stay in the file."""
        try:
            with self._usable():
                rows = self._database.execute(_KEPT).fetchall()
        except SpoolUnavailable:
            with suppress(SpoolUnavailable):  # otherwise the next client would find it in use instead of damaged
                self.close()
            raise
        kept = [
            Message(
                dataset,
                defaults,
                rows=count,
                size=size,
                task_id=task_id,
                enqueued_at=at,
                number=number,
                sent_at=sent,
                columnar=bool(columnar),
                queue=queue,
            )
            for number, task_id, dataset, defaults, columnar, sent, queue, count, size, at in rows
        ]
        self.bytes = sum(message.size for message in kept)
        return kept

    def parts(self, message: Message) -> list[bytes]:
        """A message's rows."""
        with self._usable():
            return [body for (body,) in self._database.execute(_BODIES, (message.number,))]

    def mark_sent(self, message: Message) -> None:
        """Record that the broker took the message at its `sent_at`."""
        with self._transaction() as database:
            database.execute(_MARK_SENT, (message.sent_at, message.number))

    def remove(self, messages: Sequence[Message]) -> None:
        """Remove messages that are safe elsewhere."""
        numbers = [(message.number,) for message in messages]
        with self._transaction() as database:
            taken = sum(size for n in numbers for (size,) in database.execute(_SIZE, n))
            database.executemany(_DROP_PARTS, numbers)
            database.executemany(_DROP_MESSAGE, numbers)
        self.bytes -= taken

    def close(self) -> None:
        """Release the file, with the rows in it, for the next process; idempotent."""
        if self in _open_spools:
            _open_spools.discard(self)
            try:
                with self._usable():
                    self._shrink(self._database)
            finally:
                self._database.close()
                os.close(self._lock)

    def _locked(self) -> int:
        path = Path(f"{self.path}.lock")
        try:
            lock = open_private(path)
        except OSError as error:
            raise SpoolUnavailable(f"the spool {self.path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise SpoolInUse(
                f"the spool {self.path} is in use by another StoreClient; give each producer its own path"
            ) from error
        return lock

    def _opened(self) -> sqlite3.Connection:
        try:
            # Before SQLite creates it with the umask's permissions; its log inherits the file's.
            os.close(open_private(self.path))
            for log in (Path(f"{self.path}{ending}") for ending in ("-wal", "-journal", "-shm")):
                if os.path.lexists(log):  # SQLite would read it, and write to it
                    require_own(log, log.lstat())
        except OSError as error:
            raise SpoolUnavailable(f"the spool {self.path} cannot be opened: {error.strerror}") from error
        # Transactions are begun explicitly; the outbox hands the connection from thread to thread.
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")  # no shared memory to keep for others
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            identity = (_pragma(database, "application_id"), _pragma(database, "user_version"))
            if tables and identity != (_APPLICATION_ID, _FORMAT):
                raise SpoolUnavailable(
                    f"{self.path} is an SQLite file, but not a spool of this version; give another path"
                )
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA journal_size_limit = 67108864")
            if not tables:
                identify = f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {_FORMAT};"
                database.executescript(f"BEGIN; {_TABLES} {identify} COMMIT;")
            elif not database.execute(_HAS_QUEUE).fetchone()[0]:
                database.execute(_ADD_QUEUE)
            self._shrink(database)
        except BaseException:
            database.close()
            raise
        return database

    def _shrink(self, database: sqlite3.Connection) -> None:
        if self.path.stat().st_size > _SHRINK_BYTES and not database.execute("SELECT 1 FROM parts LIMIT 1").fetchall():
            database.execute("VACUUM")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._usable():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite itself rolls back when the disk is full
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is not None and code & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                remedy = "it is not a spool, or it is damaged; move it away, or give another path"
            else:
                remedy = "is the disk full, or the file read-only?"
            raise SpoolUnavailable(f"the spool {self.path} cannot be used: {error}; {remedy}") from error


def free_path(directory: Path) -> Path:
    """A free path in a directory of spools: first one in which a dead client left rows.

    Raises `SpoolUnavailable`. Another client can take the path before it is used (`SpoolInUse`): ask again.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        existing = sorted(directory.glob("*.db"))
    except OSError as error:
        raise SpoolUnavailable(f"the spools' directory {directory} cannot be used: {error.strerror}") from error
    free: list[Path] = []
    for path in existing:
        try:
            spool = Spool(path, 0)
        except SpoolInUse:
            continue
        holds_rows = bool(spool.messages())
        spool.close()
        if holds_rows:
            return path
        free.append(path)
    unused = (directory / f"{number:03}.db" for number in itertools.count())
    return free[0] if free else next(path for path in unused if path not in existing)


def _pragma(database: sqlite3.Connection, name: str) -> Any:
    return database.execute(f"PRAGMA {name}").fetchone()[0]


_open_spools: weakref.WeakSet[Spool] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Drop the spools in a forked child: they belong to its parent."""
    for spool in list(_open_spools):
        # If the child held the lock as well, the next process could not take the file when the parent is killed.
        os.close(spool._lock)
        # Never close it: SQLite would write its log back and delete it while the parent still uses it
        # (sqlite.org/howtocorrupt.html, 2.6).
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(spool._database))
    _open_spools.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
