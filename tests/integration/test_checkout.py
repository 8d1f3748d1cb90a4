"""What only other programs can say of the checkout: git of its files, systemd of its units."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
from support.processes import PYTHON, run

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy/systemd"
#: Where the units expect the virtual environment's programs.
PROGRAMS = "/opt/market-data-store/.venv/bin/"


def test_the_version_stands_in_pyproject_alone() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tracked = run("git", "grep", "-lF", version, directory=ROOT)
    assert {"pyproject.toml"} <= set(tracked.stdout.split()) <= {"pyproject.toml", "CHANGELOG.md"}, tracked


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    units = tmp_path / "units"
    shutil.copytree(UNITS, units)
    for unit in units.glob("*.service"):  # it looks whether the programs exist
        unit.write_text(unit.read_text().replace(PROGRAMS, f"{Path(PYTHON).parent}/"))
    checked = run(
        *("systemd-analyze", "verify"),
        *units.glob("*.service"),
        units / "mds.target",
        directory=tmp_path,
        environment={"SYSTEMD_UNIT_PATH": f"{units}:"},
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
