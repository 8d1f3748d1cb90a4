"""What a process costs that imports `StoreClient`, or that asks `mds` for help: CPU time and peak memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import processes
from benchmarks.against.builds import Build
from benchmarks.against.turns import in_turn
from benchmarks.against.verdict import Measure, Sample

IMPORT_CPU = Measure("import StoreClient, CPU", "ms", most=0.75)
IMPORT_MEMORY = Measure("import StoreClient, peak memory", "MB", most=0.85)
#: 0.35 s where e122a62 takes 0.85 s.
HELP_CPU = Measure("mds --help, CPU", "ms", most=0.35 / 0.85)

#: Named, so that a lazy package imports the class itself.
_IMPORT = "from market_data_store import StoreClient; StoreClient"


def starts(
    builds: Mapping[str, Build], parts: Sequence[str], launches: int, directory: Path, show: Callable[[str], None]
) -> Iterator[Sample]:
    """Start each version's processes in turn; the first start of each fills the disk cache and does not count."""
    for number in range(-1, launches):
        for name in in_turn(list(builds), number):
            for sample in _started(name, builds[name], parts, number, directory):
                if number >= 0:
                    yield sample
    show(f"started {launches} times each: {', '.join(parts)}")


def _started(name: str, build: Build, parts: Sequence[str], number: int, directory: Path) -> Iterator[Sample]:
    if "import" in parts:
        used = _launch([build.python, "-c", _IMPORT], directory)
        yield Sample(IMPORT_CPU, name, number, 1e3 * used["cpu_s"])
        yield Sample(IMPORT_MEMORY, name, number, used["peak_mb"])
    if "help" in parts:
        yield Sample(HELP_CPU, name, number, 1e3 * _launch([build.mds, "--help"], directory)["cpu_s"])


def _launch(command: Sequence[str], directory: Path) -> Mapping[str, float]:
    launcher = [sys.executable, "-S", "-m", "benchmarks.against.launched", *command]
    used: Mapping[str, float] = processes.answer(launcher, processes.environment(), cwd=directory)
    return used
