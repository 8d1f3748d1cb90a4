"""Files as the world writes them, in a directory of cases beside the repository: what is stored of each."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.processes import MDS, PYTHON, inherited, running

from market_data_store.config.owned_files import variables

ROOT = Path(__file__).parents[2]
CASES = Path(os.environ.get("CASES_DIRECTORY") or ROOT.parent / "shared" / "cases")


@pytest.mark.slow
@pytest.mark.skipif(not (CASES / "check_cases.py").exists(), reason="no directory of cases; set CASES_DIRECTORY")
def test_what_the_first_command_stores_of_each_file(tmp_path: Path) -> None:
    with running(*MDS, "up", "--web-port=0", "--flower-port=0", directory=tmp_path) as up:
        up.wait_for_text("Ready")
        urls = variables(tmp_path / ".mds/env")
        files, expected = CASES / "files", CASES / "expected.json"
        done = subprocess.run(
            [PYTHON, CASES / "check_cases.py", " ".join(MDS), urls["DATABASE_URL"], files, expected],
            cwd=tmp_path,
            env=inherited(urls),
            capture_output=True,
            text=True,
            timeout=1_500,
        )
    totals = {name: int(number) for name, number in re.findall(r"([A-Z_]+) (\d+)(?:,|$)", done.stdout.splitlines()[-1])}
    assert totals["SILENTLY_WRONG"] == totals["CRASHED"] == 0, done.stdout
    assert totals["RIGHT_FIRST"] >= 30, done.stdout
    good = sum(totals[name] for name in ("RIGHT_FIRST", "RIGHT_AFTER_ASKING", "REFUSED_AS_IT_SHOULD"))
    assert good >= 48, done.stdout
