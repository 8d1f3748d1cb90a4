"""Every process checks all settings when it starts: a line for each wrong one, exit status 2, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from honcho.environ import parse_procfile
from support.processes import PYTHON, run
from support.wrong_settings import CONTRADICTIONS, UNKNOWN, WRONG

pytestmark = pytest.mark.slow

PROCESSES = {
    **parse_procfile((Path(__file__).parents[2] / "Procfile").read_text()).processes,
    "up": "mds up",
    "status": "mds status",
    "inspect": "celery -A market_data_store.app inspect ping",
    "program": f"{PYTHON} program.py",
}
#: What any program of a user's does.
PROGRAM = """
from market_data_store import ConfigurationError, StoreClient
try:
    StoreClient()
except ConfigurationError as error:
    raise SystemExit(2 * bool([print("error:", line) for line in str(error).splitlines()]))
"""
SERVERS = {"DATABASE_URL": "postgresql://127.0.0.1:9/d", "BROKER_URL": "redis://127.0.0.1:9/0"}
#: Of the variables that name a broker only the first is looked at.
FIRST, THEN = ("BROKER_URL", "REDIS_TLS_URL"), ("CLOUDAMQP_URL", "REDIS_URL")


def said(process: str, directory: Path, **variables: str) -> list[str]:
    """The lines of a process that is started with these variables, and ends."""
    (directory / "program.py").write_text(PROGRAM)
    done = run("sh", "-c", f"exec {PROCESSES[process]}", directory=directory, environment=variables, timeout_s=60)
    assert done.returncode == 2, done
    lines = (done.stdout + done.stderr).splitlines()
    assert all(line.startswith("error: ") for line in lines), done
    return [line.removeprefix("error: ") for line in lines]


@pytest.mark.parametrize("process", PROCESSES)
def test_each_wrong_value_and_each_unknown_name_is_a_line(process: str, tmp_path: Path) -> None:
    for left_out in (THEN, FIRST):
        wrong = {name: value for name, value in WRONG.items() if name not in left_out}
        lines = said(process, tmp_path, **wrong, **dict.fromkeys(UNKNOWN, "x"))
        assert {line for line in lines if line.endswith(" settings") or "did you mean" in line} == {
            f"{name}: is not a setting; "
            + (f"did you mean {nearest}?" if nearest else "delete it; docs/settings.md lists all settings")
            for name, nearest in UNKNOWN.items()
        }
        for name in wrong:
            assert [line for line in lines if line.startswith((f"{name}=", f"{name}: ", f"{name} "))], (name, lines)
        assert len(lines) == len(wrong) + len(UNKNOWN)
        assert "s3cret" not in "".join(lines)


@pytest.mark.parametrize("process", PROCESSES)
def test_each_contradiction_is_a_line(process: str, tmp_path: Path) -> None:
    together = {name: value for given, _ in CONTRADICTIONS for name, value in given.items()}
    lines = said(process, tmp_path, **SERVERS, **together)
    for line, (_, beginning) in zip(lines, CONTRADICTIONS, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize("process", ["release", "web", "worker"])
def test_the_file_is_checked(process: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MDS_BATCH_ROW=1\nMDS_BATCH_ROWS=0\n")
    assert said(process, tmp_path, **SERVERS) == [
        "MDS_BATCH_ROW: is not a setting; did you mean MDS_BATCH_ROWS?",
        "MDS_BATCH_ROWS='0': input should be greater than or equal to 1",
    ]


@pytest.mark.parametrize("process", ["web", "worker"])
def test_what_is_missing_is_a_line(process: str, tmp_path: Path) -> None:
    (line,) = said(process, tmp_path, BROKER_URL=SERVERS["BROKER_URL"])
    assert line.startswith("DATABASE_URL is not set; set it to postgresql://")
    (line,) = said(process, tmp_path, DATABASE_URL=SERVERS["DATABASE_URL"])
    assert line.startswith("BROKER_URL is not set; set it to redis://")
