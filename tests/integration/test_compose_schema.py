"""deploy/compose.yaml, as the schema of the Compose specification has it."""

from __future__ import annotations

from pathlib import Path

from support.processes import PYTHON, run

COMPOSE = Path(__file__).parents[2] / "deploy/compose.yaml"
CHECK = (PYTHON, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")


def test_compose_understands_the_file(tmp_path: Path) -> None:
    checked = run(*CHECK, COMPOSE, directory=tmp_path)
    assert checked.returncode == 0, checked
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("mem_limit: 4g", "memory_limit: 4g"))
    assert "memory_limit" in run(*CHECK, wrong, directory=tmp_path).stdout
