"""The audit of the lock files: what it says, and how it ends, by what the databases answer."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pip_audit._service import Dependency, OsvService, SkippedDependency, VulnerabilityResult, VulnerabilityService
from support.ports import free_ports

ROOT = Path(__file__).parents[2]
VERSIONS = {"celery": "5.7.0", "kombu": "5.7.0", "flask": "3.1.3"}


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("ci_audit", ROOT / ".ci/audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where its dataclass looks
    spec.loader.exec_module(module)
    return module


audit = loaded()


class Knows(VulnerabilityService):
    """A database that knows these packages, and of no vulnerability in them."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def query(self, spec: Dependency) -> tuple[Dependency, list[VulnerabilityResult]]:
        return (spec if spec.name in self.names else SkippedDependency(spec.name, "not found")), []


class Osv(BaseHTTPRequestHandler):
    """Answers as osv.dev does: of Flask it knows a vulnerability, if it is to."""

    vulnerable = False

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = {"name": asked["package"]["name"], "ecosystem": "PyPI"}
        found = {"id": "TEST-1", "summary": "s", "affected": [{"package": package}]}
        body = json.dumps({"vulns": [found]} if self.vulnerable and package["name"] == "flask" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not to the output of the tests."""


@pytest.fixture
def osv() -> Iterator[OsvService]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        threading.Thread(target=server.serve_forever).start()
        service = OsvService(osv_url=f"http://127.0.0.1:{server.server_port}/v1/query", timeout=5)
        yield service
        service.session.close()
        server.shutdown()


@pytest.fixture
def nothing_there() -> Iterator[OsvService]:
    service = OsvService(osv_url=f"http://127.0.0.1:{free_ports(1)[0]}/v1/query", timeout=5)
    yield service
    service.session.close()


def test_versions_without_a_known_vulnerability_pass(osv: OsvService, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.audit(VERSIONS, {"PyPI": Knows(), "OSV": osv}) == 0
    assert capsys.readouterr().out == "audited: 3 packages, no known vulnerability (OSV)\n"


def test_a_known_vulnerability_fails(
    osv: OsvService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Osv, "vulnerable", True)
    assert audit.audit(VERSIONS, {"OSV": osv}) == 1
    assert capsys.readouterr().out == "vulnerable: flask 3.1.3: TEST-1\n"


def test_a_package_that_the_database_does_not_know_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.audit(VERSIONS, {"PyPI": Knows("celery", "kombu")}) == 1
    assert capsys.readouterr().out == "could not be audited: flask (PyPI does not know them)\n"


def test_without_a_database_it_does_not_pass_and_says_so(
    nothing_there: OsvService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.audit(VERSIONS, {"PyPI": Knows(), "OSV": nothing_there}) == audit.NOT_AUDITED != 0
    said = capsys.readouterr().out
    assert said.startswith("not audited: no database of advisories can be reached here (PyPI knows none of the 3 ")
    assert said.endswith("; OSV cannot be reached)\n")
    assert said.count("\n") == 1


def test_it_looks_up_every_package_of_the_lock_files() -> None:
    locks = [ROOT / ".ci/requirements.lock", *ROOT.glob("deploy/*.lock")]
    listed = {line.partition("==")[0] for lock in locks for line in lock.read_text().splitlines() if "==" in line}
    assert audit.pins(locks).keys() == listed


def test_nothing_to_look_up_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.lock").touch()
    with pytest.raises(SystemExit, match="no pinned version"):
        audit.pins([tmp_path / "empty.lock"])
