"""`mds doctor`: checks settings, servers and processes, and says what to do; `--bundle` writes it for support."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import click

from market_data_store.app import app
from market_data_store.cli.terminal import printable
from market_data_store.status.doctor import bundle
from market_data_store.status.doctor.examination import Seen, examine
from market_data_store.status.doctor.finding import Finding, Severity, counted, worst

_COLORS: dict[Severity, str] = {"ok": "green", "warning": "yellow", "error": "red", "skipped": "blue"}
_WIDTH = 28


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--bundle",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a zip for support: findings, settings, packages, status, columns. No secrets, no rows.",
)
def command(as_json: bool, path: Path | None) -> None:
    """Check everything that the store needs, a line each: ok, warning or error, what is wrong and what to do.

    Changes nothing. The exit code is 0 if there are warnings at most, otherwise 1.

    \b
    mds doctor
    mds doctor --json
    mds doctor --bundle support.zip
    """
    seen = Seen()
    findings = shown(examine(app, seen), quiet=as_json)
    report = bundle.report_of(findings, worst(findings), time.time(), version("market-data-store"))
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(summary(findings))
    if path is not None:
        names = bundle.write(path, report, seen.settings, seen.sample)
        click.echo(f"{path}: {', '.join(names)}; no secrets, no rows", err=as_json)
    sys.exit(1 if worst(findings) == "error" else 0)


def shown(findings: Iterable[Finding], *, quiet: bool = False, least: Severity = "ok") -> list[Finding]:
    """Print each finding that is not only `ok`, if `least` says so, as it comes; return all."""
    found: list[Finding] = []
    for finding in findings:
        found.append(finding)
        if not quiet and (least == "ok" or finding.severity in ("warning", "error")):
            click.secho(f"{finding.severity:<8}", fg=_COLORS[finding.severity], nl=False)
            click.echo(f" {finding.check:<{_WIDTH}} {printable(str(finding))}")
    return found


def summary(findings: Iterable[Finding]) -> str:
    """Count the findings by how bad they are, in one line."""
    counts = Counter(finding.severity for finding in findings)
    errors, warnings = (counted(counts[severity], severity) for severity in ("error", "warning"))
    return f"{errors}, {warnings}, {counts['skipped']} skipped, {counts['ok']} ok"
