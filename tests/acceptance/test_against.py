"""The comparison with an earlier version runs: both are built, take their turns, and every line has a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.requirements import missing, require_rabbitmq

ROOT = Path(__file__).parents[2]
COMMIT = "e122a62"
COMMAND = ["--rounds", "1", "--rows", "5000", "--launches", "1"]


@pytest.mark.soak
def test_one_short_round_against_an_earlier_version(tmp_path: Path) -> None:
    require_rabbitmq()
    found = subprocess.run(["git", "cat-file", "-e", COMMIT], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        missing(f"{COMMIT} is not in this clone: {found.stderr.strip()}")

    file = tmp_path / "against.json"
    command = [sys.executable, "-m", "benchmarks.against", COMMIT, *COMMAND, "--json", str(file)]
    command += ["--scratch", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)

    # Which it is, a round as short as this cannot say.
    assert done.returncode in (0, 1), done.stdout[-5_000:] + done.stderr[-5_000:]
    results = json.loads(file.read_text())
    assert results["not_measured"] == {}
    cases = ("new rows, 500 a message", "new rows, 1 a message", "replayed rows, 500 a message", "tables of 5,000 rows")
    drains = {f"{case}, {broker}" for case in cases for broker in ("redis", "rabbitmq")}
    starts = {"import StoreClient, CPU", "import StoreClient, peak memory", "mds --help, CPU"}
    by_name = {comparison["measure"]["name"]: comparison for comparison in results["comparisons"]}
    assert by_name.keys() == drains | starts
    for name, comparison in by_name.items():
        assert comparison["other"] > 0, name
        assert comparison["present"] > 0, name
        assert name in done.stdout
    for name in drains:
        for contender in (COMMIT, "present"):
            facts = by_name[name]["facts"][contender]
            assert facts["cpu_us_parent"] + facts["cpu_us_children"] > 0, (name, contender)
            assert {"cpu_us_postgres", f"cpu_us_{name.rpartition(', ')[2]}"} <= facts.keys()
