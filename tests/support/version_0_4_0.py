"""Version 0.4, from the commit that released it: what it stored is what today's version must recognise."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from benchmarks.against.trees import unpack_commit
from market_data_store.errors import MarketDataStoreError
from support.processes import PYTHON, inherited
from support.requirements import missing

COMMIT = "e122a62"
ROOT = Path(__file__).parents[2]

#: Reads messages, writes their rows to the database if one is given, and prints the `seq` of each row.
_PROGRAM = """
import json, sys
from functools import partial
from market_data_store import schema
from market_data_store.batch import Message
from market_data_store.datasets import DATASETS
from market_data_store.rows import decode_rows
from market_data_store.writer import Writer

found = []
url = sys.argv[1] if len(sys.argv) > 1 else ""
if url:
    schema.upgrade(url)
    writer = Writer(url)
for message in json.load(sys.stdin):
    dataset = DATASETS[message["dataset"]]
    text = json.dumps(message["rows"]).encode()
    decoded = decode_rows(dataset, text, message["defaults"], message["enqueued_at"])
    assert not decoded.rejects, decoded.rejects
    seqs = dict(zip((c.name for c in dataset.columns), decoded.columns))["seq"]
    found.append(list(seqs))
    if url:
        writer.write(dataset, [Message(
            task_id="t", decoded=decoded, enqueued_at=message["enqueued_at"], row_text=str, defaults=message["defaults"]
        )])
json.dump(found, sys.stdout)
"""


class Version040:
    """The package as it was, in a directory. Its dependencies are those of today."""

    def __init__(self, directory: Path) -> None:
        try:
            unpack_commit(ROOT, COMMIT, directory)
        except MarketDataStoreError as error:
            if "shallow clone" in str(error):
                pytest.skip(str(error))
            missing(str(error))
        self._directory = directory

    @staticmethod
    def can_be_built() -> bool:
        """Whether this repository has its commit."""
        try:
            with TemporaryDirectory() as directory:
                unpack_commit(ROOT, COMMIT, Path(directory))
        except MarketDataStoreError:
            return False
        return True

    @property
    def variables(self) -> dict[str, str]:
        """What a process that is to run this version has in its environment; it finds the tests' modules, too."""
        return {"PYTHONPATH": os.pathsep.join(map(str, (self._directory / "src", ROOT / "tests", ROOT)))}

    def take(self, messages: list[dict[str, Any]], url: str = "") -> list[list[int]]:
        """Take messages (dataset, rows, defaults, enqueued_at); returns the `seq` of each row.

        With the URL of an empty database, their rows are stored there.
        """
        environment = {**inherited({}), "PYTHONPATH": str(self._directory / "src")}
        done = subprocess.run(
            [PYTHON, "-c", _PROGRAM, *([url] if url else [])],
            input=json.dumps(messages),
            env=environment,
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[list[int]] = json.loads(done.stdout)
        return found
