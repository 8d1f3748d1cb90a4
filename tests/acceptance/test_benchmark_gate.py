"""The benchmark runs, and none of its ratios has collapsed. docs/performance.md has the figures of a quiet machine."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from support.processes import run
from support.requirements import require_rabbitmq

ROOT = Path(__file__).parents[2]
COMMAND = ["--only", "writer,drain", "--per-message", "1,500", "--rows", "20000", "--repeat", "3"]

#: Contender, broker and rows a message; then the least ratio to a bare COPY of the same run: a third of what is usual,
#: since the machine may be busy with other things.
LEAST = {
    ("our decoding and writer, 5,000 rows a commit", "", 500): 0.3,
    ("our worker", "redis", 500): 0.25,
    ("our worker", "rabbitmq", 500): 0.25,
    ("our worker", "redis", 1): 0.01,
    ("our worker", "rabbitmq", 1): 0.007,
    ("our worker, write_table", "redis", 5_000): 0.3,
    ("our worker, write_table", "rabbitmq", 5_000): 0.3,
}


pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Any, ...], float]:
    """Rows a second, the median of the rounds."""
    out = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "-m", "benchmarks", *COMMAND, "--out", str(out)]
    done = run(*command, directory=ROOT, timeout_s=500)
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-5_000:]
    found = defaultdict(list)
    for measured in json.loads((out / "results.json").read_text())["runs"]:
        label, timing = measured["label"], measured["timing"]
        found[label["contender"], label["broker"], label["per_message"]].append(timing["rows"] / timing["seconds"])
    return {label: median(rates) for label, rates in found.items()}


@pytest.mark.parametrize("label", LEAST, ids=str)
def test_ratio_to_a_bare_copy(rates: dict[tuple[Any, ...], float], label: tuple[Any, ...]) -> None:
    if label[1] == "rabbitmq":
        require_rabbitmq()
    assert rates[label] / rates["bare COPY", "", 500] > LEAST[label]
