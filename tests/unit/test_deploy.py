"""The examples of a deployment run what the Procfile runs, with variables that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from market_data_store.config import Settings
from market_data_store.local.processes import web_command, worker_command

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy/systemd"
#: Where the units expect the virtual environment's programs.
PROGRAMS = "/opt/market-data-store/.venv/bin/"
#: What others read: Postgres's image, Flower.
NOT_OURS = {"POSTGRES_PASSWORD", "POSTGRES_USER", "POSTGRES_DB"}


def procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: shlex.split(command) for name, _, command in (line.partition(": ") for line in lines)}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    return found


def known_variables() -> set[str]:
    aliases = (field.validation_alias for field in Settings.model_fields.values())
    return {name for alias in aliases for name in getattr(alias, "choices", ())} | NOT_OURS


def test_mds_up_runs_what_the_procfile_says() -> None:
    assert procfile()["web"] == web_command()
    assert procfile()["worker"] == worker_command()


def test_each_process_of_the_procfile_has_a_service(services: dict[str, Any]) -> None:
    commands = {name: shlex.split(services[name]["command"]) for name in procfile()}
    assert commands == procfile()
    for name, service in services.items():
        variables = service.get("environment", {}).keys()
        assert variables <= known_variables(), name
        assert name == "release" or service["healthcheck"]["test"][0] == "CMD"


def test_each_process_of_the_procfile_has_a_unit() -> None:
    units = {name: UNITS / f"mds-{'migrate' if name == 'release' else name}.service" for name in procfile()}
    assert set(units.values()) == set(UNITS.glob("*.service"))
    for name, unit in units.items():
        (command,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
        assert command.startswith(PROGRAMS)
        assert shlex.split(command.removeprefix(PROGRAMS)) == procfile()[name]


def test_the_documents_name_variables_that_exist() -> None:
    text = (ROOT / "docs/deploy.md").read_text()
    named = set(re.findall(r"\b(?:MDS_[A-Z_]*[A-Z]|[A-Z]+_URL|ADMIN_TOKEN|FLOWER_BASIC_AUTH)\b", text))
    assert named <= known_variables()
