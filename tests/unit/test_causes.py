"""Each cause of trouble has one section of docs/troubleshooting.md, and its place in docs/status-page.md."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from market_data_store.causes import SECTIONS, Cause, fields_of, help_of

ROOT = Path(__file__).parents[2]
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()
STATUS_PAGE = (ROOT / "docs/status-page.md").read_text()
ALERTS = [
    rule for group in yaml.safe_load((ROOT / "grafana/alerts.yml").read_text())["groups"] for rule in group["rules"]
]
HEADINGS = Counter(
    re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
    for heading in re.findall(r"^## (.+)$", TROUBLESHOOTING, re.MULTILINE)
)


def test_each_cause_has_a_section_of_its_own() -> None:
    assert SECTIONS.keys() == set(Cause)
    assert len({*SECTIONS.values()}) == len(SECTIONS)


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_is_documented_once(cause: Cause) -> None:
    assert HEADINGS[SECTIONS[cause]] == 1
    assert help_of(cause) == f"docs/troubleshooting.md#{SECTIONS[cause]}"
    assert fields_of(cause) == {"cause": cause.value, "help": help_of(cause)}
    (row,) = re.findall(rf"^\| `{cause.value}` \|.*$", STATUS_PAGE, re.MULTILINE)
    assert f"(troubleshooting.md#{SECTIONS[cause]})" in row


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_each_alert_names_its_section(rule: dict[str, dict[str, str]]) -> None:
    document, _, sections = rule["annotations"]["runbook_url"].partition("#")
    assert document == "docs/troubleshooting.md"
    named = re.sub(r"{{.*?}}", " ", sections).split()  # a template chooses one of several
    assert named
    assert [HEADINGS[section] for section in named] == [1] * len(named)
