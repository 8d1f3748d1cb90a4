"""Writes the results to a directory: results.json with the raw figures, results.md and results.png."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.results import Results
from benchmarks.tables import markdown
from benchmarks.targets import targets


def write(results: Results, directory: Path) -> list[str]:
    """Write the files, and return their names. Without matplotlib there is no picture."""
    targeted = [{**msgspec.to_builtins(target), "verdict": target.verdict} for target in targets(results)]
    raw = msgspec.json.encode({"targets": targeted, **msgspec.to_builtins(results, str_keys=True)})
    (directory / "results.json").write_bytes(msgspec.json.format(raw, indent=1) + b"\n")
    (directory / "results.md").write_text(markdown(results))
    names = ["results.json", "results.md"]
    if results.runs:
        try:
            from benchmarks.plot import draw
        except ImportError:
            return [*names, "no picture: install the extra `bench` (pip install '.[bench]' in a checkout)"]
        draw(results, directory / "results.png")
        names.append("results.png")
    return names
