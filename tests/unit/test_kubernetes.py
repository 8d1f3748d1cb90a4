"""The manifests of deploy/kubernetes: valid for Kubernetes, and running what the Procfile runs, safely."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from market_data_store.config import Settings
from market_data_store.local.processes import STOP_TIMEOUT_S

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy/kubernetes"
FILES = sorted(path for path in MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml")
DOCUMENTS: list[dict[str, Any]] = [each for path in FILES for each in yaml.safe_load_all(path.read_text())]
#: The oldest version that is still maintained when this was written, and a newer one.
VERSIONS = ("1.33", "1.36")
#: A kind that KEDA adds has no schema there.
KEDA = "keda.sh/v1alpha1"
PROCESSES = {d["metadata"]["name"].removeprefix("mds-"): d for d in DOCUMENTS if d["kind"] in ("Deployment", "Job")}
OPTIONS = {"release": ["--wait", "300"], "worker": ["-n", "worker@%h"]}
each_process = pytest.mark.parametrize("name", PROCESSES)


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = PROCESSES[name]["spec"]["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


def one(kind: str) -> dict[str, Any]:
    (found,) = [document for document in DOCUMENTS if document["kind"] == kind]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_them(version: str) -> None:
    for document in DOCUMENTS:
        if document["apiVersion"] != KEDA:
            kubernetes_validate.validate(document, version, strict=True)


def test_a_field_that_is_not_one_is_found() -> None:
    wrong = yaml.safe_load((MANIFESTS / "monitor.yaml").read_text())
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 30
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_kustomize_applies_all_of_them_with_one_image() -> None:
    listed = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    assert sorted(listed["resources"]) == [path.name for path in FILES]
    (image,) = listed["images"]
    assert image.keys() == {"name", "newName", "newTag"}
    assert image["name"] == "market-data-store"
    assert {container(name)["image"] for name in PROCESSES} == {"market-data-store"}


def test_they_run_what_the_procfile_says() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    commands = {name: shlex.split(command) for name, _, command in (line.partition(": ") for line in lines)}
    assert {name: container(name)["command"] for name in PROCESSES} == {
        name: [*command, *OPTIONS.get(name, [])] for name, command in commands.items()
    }


@each_process
def test_a_pod_ends_in_its_own_time_and_has_no_more_rights_than_it_needs(name: str) -> None:
    found = pod(name)
    assert found["terminationGracePeriodSeconds"] > STOP_TIMEOUT_S
    assert found["automountServiceAccountToken"] is False
    assert found["securityContext"]["runAsUser"] == 10001
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container(name)["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108


@each_process
def test_no_variable_of_a_service_becomes_a_setting(name: str) -> None:
    """Kubernetes makes MDS_WEB_PORT of the service `mds-web`, and a process refuses a setting that it does not know."""
    assert pod(name)["enableServiceLinks"] is False


@each_process
def test_a_process_has_its_own_secret_and_settings_that_exist(name: str) -> None:
    assert container(name)["envFrom"] == [{"secretRef": {"name": f"mds-{name}"}}]
    aliases = (field.validation_alias for field in Settings.model_fields.values())
    known = {choice for alias in aliases for choice in getattr(alias, "choices", ())} | {"CELERY_WORKER_CONCURRENCY"}
    assert {each["name"] for each in container(name).get("env", ())} <= known
    assert f"secret generic mds-{name}" in (ROOT / "docs/deploy.md").read_text()


@each_process
def test_a_process_has_a_limit_of_memory_and_asks_for_less(name: str) -> None:
    resources = container(name)["resources"]
    asked, limit = resources["requests"]["memory"], resources["limits"]["memory"]
    assert mebibytes(asked) < mebibytes(limit)
    assert "cpu" not in resources["limits"], "a limit of CPU slows a worker down that holds locks"
    assert f"| `{name}` | {limit} |" in (ROOT / "docs/deploy.md").read_text()


def mebibytes(text: str) -> int:
    number, unit = int(text[:-2]), text[-2:]
    return number * {"Mi": 1, "Gi": 1024}[unit]


@pytest.mark.parametrize("name", [name for name in PROCESSES if name != "release"])
def test_a_process_is_asked_how_it_is_on_a_port_that_it_has(name: str) -> None:
    found = container(name)
    ports = {port["name"]: str(port["containerPort"]) for port in found["ports"]}
    settings = {each["name"]: each["value"] for each in found["env"]}
    assert set(ports.values()) <= set(settings.values())
    assert settings["MDS_HOST"] == "0.0.0.0"  # noqa: S104  # the pod's own address
    for probe in ("startupProbe", "livenessProbe"):
        assert found[probe]["httpGet"]["port"] in ports
    assert found["livenessProbe"]["httpGet"]["path"] != "/readyz", "a database that is away is no reason to restart"


def test_the_page_is_reachable_while_the_store_is_not_ready() -> None:
    web = container("web")
    assert web["readinessProbe"]["httpGet"]["path"] == "/readyz"
    (service,) = [d for d in DOCUMENTS if d["kind"] == "Service" and d["metadata"]["name"] == "mds-web"]
    assert service["spec"]["publishNotReadyAddresses"] is True
    allowed = next(each["value"] for each in web["env"] if each["name"] == "MDS_ALLOWED_HOSTS").split(",")
    asked = {h["value"] for probe in ("livenessProbe", "readinessProbe") for h in web[probe]["httpGet"]["httpHeaders"]}
    assert asked <= set(allowed)


def test_workers_follow_the_depth_that_web_tells() -> None:
    scaled = one("ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == PROCESSES["worker"]["metadata"]["name"]
    assert "replicas" not in PROCESSES["worker"]["spec"], "each deployment would undo what KEDA has decided"
    assert 1 <= scaled["minReplicaCount"] < scaled["maxReplicaCount"]
    port = container("web")["ports"][0]["containerPort"]
    hosts = next(each["value"] for each in container("web")["env"] if each["name"] == "MDS_ALLOWED_HOSTS")
    soft_from = Settings.model_fields["queue_capacity"].default * Settings.model_fields["soft_above"].default
    for trigger, lane in zip(scaled["triggers"], ("queue", "backfill"), strict=True):
        asked = trigger["metadata"]
        assert trigger["type"] == "metrics-api"
        assert asked["valueLocation"] == f"{lane}.depth"  # `status.document`; tests/integration/status has its keys
        assert asked["url"] == f"http://mds-web.market-data.svc:{port}/status.json"
        assert "mds-web.market-data.svc" in hosts.split(",")
        assert scaled["minReplicaCount"] * int(asked["targetValue"]) < soft_from, "it grows before producers slow down"
        assert trigger["authenticationRef"]["name"] == one("TriggerAuthentication")["metadata"]["name"]
    (secret,) = one("TriggerAuthentication")["spec"]["secretTargetRef"]
    assert secret == {"parameter": "token", "name": "mds-web", "key": "MDS_STATUS_TOKEN"}
