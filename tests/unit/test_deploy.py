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
UNIT_NAMES = {"release": "migrate", "worker": "worker@"}
#: Several workers run on a machine; at its start the machine's Postgres may take a while.
UNIT_OPTIONS = {"release": ["--wait", "300"], "worker": ["-n", "worker%i@%%h"]}
#: What Celery reads, and what Postgres's and Valkey's containers do.
NOT_OURS = {"CELERY_WORKER_CONCURRENCY"}
SERVERS = {
    "postgres": {"POSTGRES_PASSWORD", "POSTGRES_DB", "DB_ADMIN_PASSWORD", "WORKER_PASSWORD", "WEB_PASSWORD"}
    | {"MONITOR_PASSWORD"},
    "valkey": {"REDISCLI_AUTH"},
}
#: What each service of compose.yaml knows, besides passwords of its own.
SECRETS = {
    "release": {"DB_ADMIN_PASSWORD"},
    "grants": {"DB_ADMIN_PASSWORD"},
    "worker": {"WORKER_PASSWORD", "VALKEY_PASSWORD"},
    "web": {"WEB_PASSWORD", "VALKEY_PASSWORD", "ADMIN_TOKEN"},
    "monitor": {"MONITOR_PASSWORD", "VALKEY_PASSWORD"},
    "flower": {"VALKEY_PASSWORD", "FLOWER_BASIC_AUTH"},
    "postgres": {"POSTGRES_PASSWORD", "DB_ADMIN_PASSWORD", "WORKER_PASSWORD", "WEB_PASSWORD", "MONITOR_PASSWORD"},
    "valkey": {"VALKEY_PASSWORD"},
}


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
        assert service["environment"].keys() <= SERVERS.get(name, known_variables()), name
        assert name in ("release", "grants") or service["healthcheck"]["test"][0] == "CMD"


def test_a_service_knows_the_secrets_that_it_needs_and_compose_refuses_without_them(services: dict[str, Any]) -> None:
    named = {
        name: set(re.findall(r"\$\{(\w+)\}?(:\?\})?", yaml.safe_dump(service["environment"])))
        for name, service in services.items()
    }
    assert named == {name: {(secret, ":?}") for secret in secrets} for name, secrets in SECRETS.items()}
    document = (ROOT / "docs/deploy.md").read_text()
    assert all(secret in document for secret in set().union(*SECRETS.values()))


def test_no_service_has_more_rights_than_it_needs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert "privileged" not in service, name
        # The image of the store has a user of its own; the others would begin as root.
        assert service.get("user", "store") == {"postgres": "postgres", "valkey": "valkey"}.get(name, "store")


def test_nothing_is_published_beyond_loopback(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"web": ["127.0.0.1:8081:8081"], "flower": ["127.0.0.1:5555:5555"]}
    networks = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["networks"]
    assert networks["servers"]["internal"] is True
    for name, service in services.items():
        assert service["networks"] == (["servers", "published"] if name in ports else ["servers"]), name


def test_each_process_of_the_procfile_has_a_unit() -> None:
    units = {name: UNITS / f"mds-{UNIT_NAMES.get(name, name)}.service" for name in procfile()}
    assert set(units.values()) == set(UNITS.glob("*.service"))
    for name, unit in units.items():
        (command,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
        assert command.startswith(PROGRAMS)
        assert shlex.split(command.removeprefix(PROGRAMS)) == [*procfile()[name], *UNIT_OPTIONS.get(name, [])]


def test_each_worker_of_a_machine_has_its_name_and_its_port() -> None:
    worker = (UNITS / "mds-worker@.service").read_text()
    assert "-n worker%i@%%h" in worker
    assert "Environment=MDS_WORKER_METRICS_PORT=910%i" in worker
    assert "mds-worker@1 mds-worker@2" in (ROOT / "docs/deploy.md").read_text()


def test_the_documents_name_variables_that_exist() -> None:
    text = (ROOT / "docs/deploy.md").read_text()
    named = set(re.findall(r"\b(?:MDS_[A-Z_]*[A-Z]|[A-Z]+_URL|ADMIN_TOKEN|FLOWER_BASIC_AUTH)\b", text))
    assert named <= known_variables()
