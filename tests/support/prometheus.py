"""A real Prometheus: it scrapes processes each second, and evaluates the alerts of grafana/alerts.yml."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from market_data_store.local import free_port
from support.processes import running
from support.requirements import missing
from support.web import wait_until_served

ALERTS = Path(__file__).parents[2] / "grafana/alerts.yml"
#: What a minute, or more, is in a test.
_WINDOW = "5s"
#: Limits in seconds that a test cannot wait for, and what they are here.
_LIMITS = {"OldestMessage": ("> 300", "> 3")}


def rules() -> list[dict[str, Any]]:
    """The alerts as they are delivered."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def _shortened() -> str:
    """The alerts with windows of seconds, which fire at once."""
    found = yaml.safe_load(ALERTS.read_text())
    for group in found["groups"]:
        for rule in group["rules"]:
            rule["for"] = "0s"
            rule["expr"] = rule["expr"].replace(*_LIMITS.get(rule["alert"], ("", "")))
            rule["expr"] = re.sub(r"\[\d+[smhd]\]", f"[{_WINDOW}]", rule["expr"])
    return str(yaml.safe_dump(found))


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)

    def firing(self) -> dict[str, Mapping[str, str]]:
        """The annotations of the alerts that fire, by name."""
        alerts = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {each["labels"]["alertname"]: each["annotations"] for each in alerts if each["state"] == "firing"}

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What the expression gives now."""
        found = self._client.get("/api/v1/query", params={"query": expression}).json()
        return list(found["data"]["result"])

    def close(self) -> None:
        self._client.close()


@contextmanager
def scraping(directory: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A server that scrapes these addresses (host:port) for the length of the block, or the test is `missing` it."""
    program = shutil.which("prometheus")
    if program is None:
        missing("prometheus is not installed; on Debian: apt-get install prometheus")
    home = directory / "prometheus"
    home.mkdir()
    (home / "alerts.yml").write_text(_shortened())
    scrape = {"job_name": "market-data-store", "static_configs": [{"targets": [*targets]}]}
    often = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration = {"global": often, "rule_files": ["alerts.yml"], "scrape_configs": [scrape]}
    (home / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    url = f"127.0.0.1:{free_port()}"
    files = (f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data")
    options = (f"--web.listen-address={url}", *files, "--log.level=warn")
    with running(program, *options, directory=home, name="prometheus") as process:
        wait_until_served(process, f"http://{url}/-/ready")
        server = Prometheus(f"http://{url}")
        try:
            yield server
        finally:
            server.close()
