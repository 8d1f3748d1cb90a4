"""The units of deploy/systemd, as systemd reads them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.processes import run

UNITS = Path(__file__).parents[2] / "deploy/systemd"
PROGRAMS = "/opt/market-data-store/.venv/bin/"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(
    "name", ["mds-web", "mds-worker@1", "mds-worker@2", "mds-monitor", "mds-flower", "mds-migrate"]
)
def test_systemd_understands_the_units(name: str, tmp_path: Path) -> None:
    units = tmp_path / "units"
    shutil.copytree(UNITS, units)
    unit = units / f"{name}.service"
    environment = {"PATH": os.defpath, "SYSTEMD_UNIT_PATH": f"{units}:"}
    verified = run("systemd-analyze", "verify", unit, directory=tmp_path, inherit=False, environment=environment)
    if f"{name}.service: Command {PROGRAMS}" not in verified.stderr:  # the programs are not installed
        pytest.skip(f"systemd-analyze does not work here: {verified.stderr[:200]}")
    assert str(units) not in verified.stderr, "a line that names a file is an error in it"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", ["mds-web", "mds-worker@1"])
def test_a_unit_leaves_little_that_an_intruder_could_do(name: str, tmp_path: Path) -> None:
    """Systemd's own measure, of ten; above 2.0 (`--threshold=20`) its exit status is not 0."""
    units = tmp_path / "units"
    shutil.copytree(UNITS, units)
    environment = {"PATH": os.defpath, "SYSTEMD_UNIT_PATH": f"{units}:"}
    command = ("systemd-analyze", "security", "--offline=yes", "--threshold=20", units / f"{name}.service")
    measured = run(*command, directory=tmp_path, inherit=False, environment=environment)
    if "Overall exposure level" not in measured.stdout:
        pytest.skip(f"systemd-analyze does not work here: {measured.stderr[:200]}")
    assert measured.returncode == 0, measured.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_target_with_all_of_its_units(tmp_path: Path) -> None:
    units = tmp_path / "units"
    shutil.copytree(UNITS, units)
    environment = {"PATH": os.defpath, "SYSTEMD_UNIT_PATH": f"{units}:"}
    verified = run(
        "systemd-analyze", "verify", units / "mds.target", directory=tmp_path, inherit=False, environment=environment
    )
    assert str(units) not in verified.stderr, verified.stderr
