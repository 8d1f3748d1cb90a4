"""The spool's file and the processes that have it open: it outlives them, and is one process's at a time."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.processes import PYTHON, run, running

from market_data_store.errors import SpoolUnavailable
from market_data_store.producer.spool import Spool

MIB = 1024 * 1024
HOLDER = """
import multiprocessing, os, sys, time
from market_data_store.producer.messages import Gathering
from market_data_store.producer.spool import Spool
spool = Spool(sys.argv[1], 1 << 20)
gathering = Gathering(1, 1 << 20, 60)
for n in range(3):
    spool.append(gathering.place("bars", b"{}", [(1, b"%d" % n)]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def bodies(spool: Spool) -> list[bytes]:
    return [b",".join(spool.parts(message)) for message in spool.messages()]


def test_a_process_that_is_killed_leaves_it_to_the_next_one_though_its_children_live(path: Path) -> None:
    script = HOLDER + "if not os.fork(): print(os.getpid(), flush=True)\ntime.sleep(600)"
    with running(PYTHON, "-c", script, path, directory=path.parent) as holder:
        child = int(holder.wait_for_line(1))
        try:
            with pytest.raises(SpoolUnavailable, match="in use"):
                Spool(path, MIB)
            holder.popen.kill()
            holder.wait()
            os.kill(child, 0)  # lives
            spool = Spool(path, MIB)
            assert bodies(spool) == [b"0", b"1", b"2"]
            spool.close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_ends_leaves_it_whole_and_may_not_write(path: Path) -> None:
    script = HOLDER + (
        "if not os.fork():\n"
        "    try: spool.append(gathering.place('bars', b'{}', [(1, b'child')]))\n"
        "    except Exception as error: print(type(error).__name__, flush=True)\n"
        "    del spool; sys.exit()\n"
        "os.wait()\n"
        "spool.append(gathering.place('bars', b'{}', [(1, b'3')]))\n"
        "os.kill(os.getpid(), 9)"
    )
    process = run(PYTHON, "-c", script, path, directory=path.parent)
    assert process.stdout == "SpoolUnavailable\n", process.stderr
    spool = Spool(path, MIB)
    assert bodies(spool) == [b"0", b"1", b"2", b"3"]
    spool.close()


@pytest.mark.parametrize("name", ["spool.db", "spool.db.lock", "spool.db-wal", "spool.db-journal"])
def test_a_link_is_neither_followed_nor_replaced(path: Path, name: str) -> None:
    other = path.with_name("other")
    for text in (None, "precious"):
        if text is not None:
            other.write_text(text)
            other.chmod(0o644)
        path.with_name(name).symlink_to(other)
        with pytest.raises(SpoolUnavailable, match=r"cannot be opened: .* is (a link|not a file)"):
            Spool(path, MIB)
        path.with_name(name).unlink()
        assert other.exists() == (text is not None)
    assert (other.read_text(), other.stat().st_mode & 0o777) == ("precious", 0o644)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["spool.db", "spool.db.lock", "spool.db-wal", "spool.db-journal"])
def test_a_file_of_another_user_is_refused(path: Path, name: str) -> None:
    theirs = path.with_name(name)
    theirs.touch(0o666)
    os.chown(theirs, 13, 13)
    with pytest.raises(SpoolUnavailable, match=r"cannot be opened: .* belongs to user 13, not 0"):
        Spool(path, MIB)
    assert theirs.stat().st_uid == 13
