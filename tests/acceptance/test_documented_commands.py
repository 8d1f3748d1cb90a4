"""The command lines of the documents, as a reader types them, one after the other on a local store."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest
from support.documented import ROOT, RUN, STATUS, commands, elsewhere
from support.processes import MDS, PYTHON, Process, run

from market_data_store.config.owned_files import variables

#: The rows of docs/dead-letters.md: good, no number, and one that the table does not take.
BAD = """\
timestamp,open,high,low,close
2024-01-02T14:30:00Z,185.1,185.4,185.0,185.3
2024-01-02T14:31:00Z,185.3,185.4,185.1,n/a
2024-01-02T14:32:00Z,185.3,185.4,185.1,1e6
"""
PLAUSIBLE = """
    TRUNCATE dead_letters RESTART IDENTITY;
    ALTER TABLE bars_ohlcv ADD CONSTRAINT plausible CHECK (close < 1e5) NOT VALID
"""
#: The files of docs/files.md: of CryptoDataDownload, of Quandl's futures, and bars with four closes that are none.
#: And the directory of docs/jobs.md.
FILES = {
    "history/2024-01.csv": "ts,symbol,open,high,low,close\n2024-01-02T14:30:00Z,ES,4780,4790,4770,4785\n",
    "history/2024-02.csv": "ts,symbol,open,high,low,close\n2024-02-01T14:30:00Z,ES,4880,4890,4870,4885\n",
    "BTC.csv": "Unix Timestamp,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT\n"
    "1599109200,2020-09-03 05:00:00,BTC/USDT,11300.1,11310.0,11290.5,11305.2,120.5,1362000.1\n"
    "1599112800,2020-09-03 06:00:00,BTC/USDT,11305.2,11320.0,11300.0,11311.7,98.1,1109500.9\n",
    "ES.csv": "Date,Open,High,Low,Last,Change,Settle,Volume\n"
    "2024-01-02,4795.5,4810.0,4760.25,4782.0,-12.5,4783.25,1500000\n",
    "bars.csv": "timestamp,open,high,low,close\n"
    + "".join(
        f"2024-01-02T00:{minute:02}:00Z,1,3,0.5,{'n/v' if minute in (10, 11, 18, 30) else 2}\n" for minute in range(59)
    ),
}
#: Statements that a document has between its commands, by the command that follows.
BEFORE = {
    "mds load bars.csv.gz --dataset bars": "TRUNCATE bars_ohlcv",
    "mds load bad.csv --dataset bars --provider ibkr --symbol AAPL --interval 1m": PLAUSIBLE,
    "mds dead-letters replay --dataset bars": "ALTER TABLE bars_ohlcv DROP CONSTRAINT plausible",
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A store in a directory that looks like a checkout, with the files that the documents load."""
    directory = tmp_path_factory.mktemp("checkout")
    for name in ("examples", "src"):
        (directory / name).symlink_to(ROOT / name)
    (directory / "history").mkdir()
    for name, text in {"bad.csv": BAD, **FILES}.items():
        (directory / name).write_text(text)
    process = Process(*MDS, "up", "--web-port=0", "--flower-port=0", directory=directory)
    process.wait_for_text("Ready")
    loaded = run(*MDS, "load", "examples/bars.csv.gz", "--dataset", "bars", directory=directory)
    assert loaded.returncode == 0, loaded
    yield process
    process.end()


def settings(up: Process) -> dict[str, str]:
    return variables(up.directory / ".mds/env")


@pytest.mark.slow
@pytest.mark.parametrize("document", RUN)
def test_each_command_of_a_document_works(up: Process, document: str) -> None:
    own = settings(up)
    done = []
    for command in commands(ROOT / document):
        if elsewhere(command):
            continue
        for name in ("BROKER_URL", "DATABASE_URL"):  # the document has those of another store
            command = re.sub(rf"^{name}=\S+", f"{name}={own[name]}", command)
        with psycopg.connect(own["DATABASE_URL"], autocommit=True) as connection:
            connection.execute(BEFORE.get(command, "SELECT"))
        result = run("bash", "-o", "pipefail", "-c", command, directory=up.directory)
        assert result.returncode == STATUS.get(command, 0), (command, result)
        done.append(result.stdout)
    assert done
    if document == "docs/reading.md":
        assert done[-1] == "equal\n"


@pytest.mark.slow
def test_the_programs_of_reading_md_work(up: Process) -> None:
    text = (ROOT / "docs/reading.md").read_text().replace("postgresql://me@host/market", settings(up)["DATABASE_URL"])
    frames, rows = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    done = run(PYTHON, "-c", frames, directory=up.directory)
    assert done.returncode == 0, done
    assert done.stdout.startswith("1368 timestamp[us, tz=UTC]\n")
    assert "shape: (2, 3)" in done.stdout
    done = run(PYTHON, "-c", rows, directory=up.directory)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1] == "2024-01-02 14:31:00+00:00 1.09875 546.0"
