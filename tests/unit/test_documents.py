"""The documents name files, modules, settings, datasets and commands that exist, and name all that they should."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic_core import PydanticUndefined
from sqlalchemy import Boolean, DateTime, Integer, Text
from sqlalchemy.dialects.postgresql import ARRAY, DATE, JSONB

from market_data_store.cli.main import cli
from market_data_store.config import Settings
from market_data_store.datasets import DATASETS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/market_data_store"
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("benchmarks/*.md")]
#: What is said of earlier versions names what was there then.
OF_TODAY = [document for document in DOCUMENTS if document.name != "CHANGELOG.md"]

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
#: A path with a folder, or the name of a file; not a URL's path, an option or a pattern.
PATH = re.compile(r"(?:[\w.-]+/)+(?:[\w.-]+)?|[\w-]+\.(?:md|py|toml|yaml|yml|ini|json)")
MODULE = re.compile(r"market_data_store(?:\.\w+)+")
COMMAND = re.compile(r"(?:^\$ |^|`)mds ((?:[a-z][a-z-]*)(?: [^`\n#|&]*)?)", re.MULTILINE)

documents = pytest.mark.parametrize("document", OF_TODAY, ids=lambda path: str(path.relative_to(ROOT)))


def rows(document: Path, *, heading: str = "") -> Iterator[list[str]]:
    """The cells of each table's rows, below a heading up to the next, or anywhere."""
    text = document.read_text()
    if heading:
        text = re.split(r"^#+ ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def anchors(document: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def source(path: str) -> Path:
    """A file that architecture.md names: of the package, or of the checkout."""
    return PACKAGE / path if (PACKAGE / path).exists() else ROOT / path


@cache
def names_in(path: Path) -> set[str]:
    """The names that a module defines, those of its classes and of parameters included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.arg(arg=name):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


@documents
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(FENCED.sub("", document.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@documents
def test_every_path_in_the_text_exists(document: Path) -> None:
    """In back quotes and in commands: relative to the checkout, to the package or to the document."""
    text = document.read_text()
    named = {span for span in CODE.findall(FENCED.sub("", text)) if PATH.fullmatch(span)}
    named |= set(
        re.findall(r"(?<![\w/.])(?:src|tests|docs|benchmarks|examples|migrations|deploy|grafana)/[\w./-]+\w", text)
    )
    places = (ROOT, PACKAGE, document.parent)
    missing = {name for name in named if not any((place / name).exists() for place in places)}
    assert missing <= NOT_FILES


#: Made by a command, a reader's own, or no path at all.
NOT_FILES = {
    ".mds/env",
    ".mds/passwords",
    ".mds/ports",
    ".mds/postgres/cluster/pg_hba.conf.before",
    "celery.py",
    "datasets.toml",
    "deploy/.env",
    ".mds/spool",
    "MDS_HOME/spool",
    "application/vnd.apache.arrow.stream",
    "benchmarks/out",
    "feed.py",
    "results.json",
    "results.md",
    # Names of spans and of a protocol.
    "apply_async/store.write",
    "run/store.write",
    "http/protobuf",
}


@documents
def test_every_module_exists(document: Path) -> None:
    for name in MODULE.findall(document.read_text()):
        assert exists(name), name


def exists(name: str) -> bool:
    """Whether it is a module, or what one offers."""
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    module, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(module), attribute)


@documents
def test_every_command_has_these_options(document: Path) -> None:
    for line in COMMAND.findall(document.read_text()):
        words = line.split()
        command: click.Command | None = cli
        context = click.Context(cli)
        while isinstance(command, click.Group) and words:
            command = command.get_command(context, words.pop(0))
        assert command is not None, line
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= known | {"--help"}, line


@documents
def test_nobody_is_told_to_install_the_predecessor(document: Path) -> None:
    """The name belongs to it on the package index."""
    assert not re.search(r"pip install[^\n]*\bmarket-data-store\b(?!/)", document.read_text())


def test_settings_md_lists_every_setting_with_its_default() -> None:
    listed = {name.strip("`"): default for name, default, *_ in rows(ROOT / "docs/settings.md") if name != "variable"}
    expected = {}
    for field in Settings.model_fields.values():
        first, *others = field.validation_alias.choices  # type: ignore[union-attr]
        expected[first] = shown(field.default)
        expected |= {other: shown(None) for other in others if other not in expected}
    assert listed == expected


def shown(default: Any) -> str:
    assert default is not PydanticUndefined
    if default is None or default in ("", {}, ()):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_readme_has_the_ten_settings_that_everybody_needs() -> None:
    every = {name: default for name, default, *_ in rows(ROOT / "docs/settings.md")}
    chosen = {
        name: default for name, default, _ in rows(ROOT / "README.md", heading="## Settings") if name != "variable"
    }
    assert len(chosen) == 10
    assert chosen.items() <= every.items()


def test_the_readme_lists_every_dataset() -> None:
    listed = [row for row in rows(ROOT / "README.md", heading="## Datasets") if row[0] != "dataset"]
    assert listed == [[f"`{d.name}`", f"`{d.table.name}`", ", ".join(d.key)] for d in DATASETS.values()]


@pytest.mark.parametrize("name", DATASETS)
def test_datasets_md_lists_every_column_with_its_names(name: str) -> None:
    listed = [row for row in rows(ROOT / "docs/datasets.md", heading=f"## {name}") if row[0] != "column"]
    assert listed == [
        [f"`{c.name}`", type_of(c), need_of(c), ", ".join(f"`{alias}`" for alias in c.info["rule"].aliases)]
        for c in DATASETS[name].columns
    ]


def type_of(column: Any) -> str:
    words = {
        **{Text: "text", DateTime: "time", DATE: "date", JSONB: "object", Integer: "integer"},
        **{Boolean: "true or false", ARRAY: "list of texts"},
    }
    return next((word for kind, word in words.items() if isinstance(column.type, kind)), "number")


def need_of(column: Any) -> str:
    rule = column.info["rule"]
    if column.primary_key:
        return "key, filled in" if rule.content_hash or rule.enqueued_at else "key"
    return "" if column.nullable else "required"


def where_to_change() -> Iterator[tuple[str, str, list[str]]]:
    for change, file, symbols in rows(ROOT / "docs/architecture.md", heading="## Where do I ..."):
        if change != "change":
            yield change, file.strip("`"), CODE.findall(symbols)


@pytest.mark.parametrize(("change", "file", "symbols"), list(where_to_change()))
def test_a_change_is_where_the_architecture_says(change: str, file: str, symbols: list[str]) -> None:
    names = {symbol for symbol in symbols if symbol.isidentifier() and not symbol.startswith("MDS_")}
    assert names <= names_in(source(file)), change


def test_the_architecture_names_every_package() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    listed = {row[0].strip("`").rstrip("/") for row in rows(ROOT / "docs/architecture.md") if row[0].endswith("/`")}
    assert listed == packages


def test_security_md_names_a_test_for_each_promise() -> None:
    promises = [row for row in rows(ROOT / "SECURITY.md") if row[-1] != "shown by"]
    assert len(promises) > 20
    for promise, *_, tests in promises:
        named = CODE.findall(tests)
        assert named, promise
        assert all(name.startswith("tests/") and (ROOT / name).is_file() for name in named), promise
    assert len((ROOT / "SECURITY.md").read_text().splitlines()) <= 150
