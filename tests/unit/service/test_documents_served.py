"""The documents as web serves them: anchors, links, and what the status page leads to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from market_data_store.config import Settings, resource
from market_data_store.service.documents import rendered
from market_data_store.service.page import create_page
from market_data_store.status.sampler import Sampler

NAMES = sorted(path.relative_to(resource("docs")).as_posix() for path in resource("docs").rglob("*.md"))


@pytest.fixture
def app() -> Flask:
    app = Flask("documents")
    app.register_blueprint(create_page(Settings(), Sampler(Settings())))
    return app


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_document_leads_to_what_is_served(name: str, app: Flask) -> None:
    client = app.test_client()
    here = Path("/docs") / name
    for target in re.findall(r'(?:href|src)="([^"]+)"', rendered(name)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        address = str(here) if not path else str(here.parent / path)
        with client.get(address.replace("/decisions/../", "/"), buffered=True) as found:
            assert found.status_code == 200, target
            assert not anchor or f'id="{anchor}"' in found.get_data(as_text=True), target


def test_a_document_is_a_page_without_scripts_and_with_tables(app: Flask) -> None:
    answer = app.test_client().get("/docs/troubleshooting.md")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert '<h2 id="a-dataset-is-held">A dataset is held</h2>' in answer.text
    assert "<table>" in answer.text
    assert "<script" not in answer.text
    index = app.test_client().get("/docs/").text
    assert '<a href="troubleshooting.md">Troubleshooting</a>' in index


@pytest.mark.parametrize("name", ["none.md", "../pyproject.toml", "..%2fpyproject.toml", "decisions", "none.png"])
def test_nothing_else_is_served(name: str, app: Flask) -> None:
    assert app.test_client().get(f"/docs/{name}").status_code == 404


def test_the_page_leads_to_sections_that_exist(app: Flask) -> None:
    scripts = "".join(path.read_text() for path in sorted(resource("service/static").glob("*.js")))
    scripts = scripts.replace("${TROUBLE}", "docs/troubleshooting.md")
    targets = set(re.findall(r"docs/[\w-]+\.md(?:#[\w-]+)?", scripts))
    assert len(targets) > 10
    for target in targets:
        path, _, anchor = target.partition("#")
        assert not anchor or f'id="{anchor}"' in rendered(path.removeprefix("docs/")), target
