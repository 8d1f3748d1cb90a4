"""The image of deploy/Dockerfile: what goes into it, as whom it runs, and what stays out. Nothing here builds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What may lie in a checkout and may not become part of an image.
SECRETS = (".env", "deploy/.env", "src/.env", "deploy/.env.local", ".mds/passwords", ".mds/env", "src/.mds/passwords")
OTHERS = (
    ".git/config",
    "feed.spool",
    "src/feed.spool-wal",
    ".venv/bin/python",
    "tests/conftest.py",
    "deploy/notes.txt",
)


def ignored(path: str) -> bool:
    """As Docker reads .dockerignore: the last pattern that fits the path, or a directory above it, decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = [re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split("/")]
        expression = "/".join(parts).replace("[^/]*[^/]*/", "(?:.*/)?")
        if re.fullmatch(f"{expression}(?:/.*)?", path):
            verdict = not line.startswith("!")
    return verdict


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, with what follows the word."""
    lines = re.sub(r"\\\n", " ", (ROOT / "deploy/Dockerfile").read_text()).splitlines()
    found: list[list[tuple[str, str]]] = []
    for line in lines:
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            if word == "FROM":
                found.append([])
            if found:
                found[-1].append((word, rest))
    return found


def copied() -> list[str]:
    """What comes from the checkout."""
    return [source for word, rest in stages()[0] if word == "COPY" for source in rest.split()[:-1]]


@pytest.mark.parametrize("path", [*SECRETS, *OTHERS])
def test_nothing_else_goes_to_the_engine(path: str) -> None:
    assert ignored(path)


def test_what_goes_to_the_engine_is_what_the_dockerfile_copies() -> None:
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for name in ("src", "migrations", "deploy", "docs", ".ci") for path in (ROOT / name).rglob("*")]
    paths = {str(path.relative_to(ROOT)) for path in files if path.is_file()}
    sent = {path for path in paths if not ignored(path)}
    named = copied()
    below = {path for path in paths if any(path == name or path.startswith(f"{name}/") for name in named)}
    assert sent == {path for path in below if "__pycache__" not in path}
    assert all((ROOT / name).exists() for name in named)


def test_all_that_is_installed_is_locked() -> None:
    installed = re.findall(r"pip install[^&]*", (ROOT / "deploy/Dockerfile").read_text())
    assert len(installed) == 3
    for command in installed:
        assert "--require-hashes -r /locks/" in command or "--no-deps /dist/*.whl" in command, command


def test_it_runs_as_a_user_who_owns_nothing() -> None:
    build, image = stages()
    assert not [rest for word, rest in build if word == "USER"]
    assert [rest for word, rest in image if word == "USER"] == ["10001:10001"]
    assert [rest for word, rest in image if word == "COPY"] == ["--from=build /opt/store /opt/store"]
    commands = " ".join(rest for word, rest in image if word == "RUN")
    assert "useradd --system --uid 10001 --no-create-home" in commands
    assert not re.search(r"ch(own|mod)|mkdir", commands)
    # Celery adds it to the import path: nobody but root may write there.
    assert [rest for word, rest in image if word == "WORKDIR"] == ["/opt/store"]
    assert "ADD" not in {word for stage in (build, image) for word, _ in stage}
