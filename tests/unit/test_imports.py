"""Rules about modules and their imports that the contract of layers cannot state."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import market_data_store

PACKAGE = Path(market_data_store.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
#: Read once by a server that is just starting, and by nobody else.
MAY_READ_SETTINGS = {"service/gunicorn_conf.py"}
MOST_LINES = 305


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one that run when the module is imported: all but the bodies of functions."""
    for field, value in ast.iter_fields(node):
        if field == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from run_at_import(child)


def calls_settings(tree: ast.AST) -> bool:
    calls = [node for node in run_at_import(tree) if isinstance(node, ast.Call)]
    return any(ast.unparse(call.func).rpartition(".")[2] == "settings" for call in calls)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limit = settings().limit", True),
        ("class A:\n    limit = config.settings().limit", True),
        ("def f(limit=settings().limit): ...", True),
        ("@decorated(settings())\ndef f(): ...", True),
        ("def f():\n    return settings()", False),
        ("f = lambda: settings()", False),
    ],
)
def test_a_call_at_import_is_told_from_one_in_a_function(text: str, expected: bool) -> None:
    assert calls_settings(ast.parse(text)) is expected


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_settings_are_not_read_at_import(path: Path) -> None:
    assert calls_settings(ast.parse(path.read_text())) is (name_of(path) in MAY_READ_SETTINGS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_worker_imports_celerys_worker(path: Path) -> None:
    if not name_of(path).startswith("worker/"):
        names = imported(ast.parse(path.read_text()))
        assert not [name for name in names if name == "celery.worker" or name.startswith("celery.worker.")]


def test_no_module_is_too_long() -> None:
    assert {name_of(path) for path in MODULES if len(path.read_text().splitlines()) > MOST_LINES} == set()
