"""Versions come from git: any commit that the clone has, and the working tree as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.against.trees import unpack_commit, unpack_working_tree
from market_data_store.errors import MarketDataStoreError

ROOT = Path(__file__).parents[3]


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: `module.py` with 1, then with 2."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text("ignored\n")
    for number in (1, 2):
        (root / "module.py").write_text(f"{number}\n")
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", f"Say {number}")
    return root


def test_a_commit_is_unpacked_as_it_was(repository: Path, tmp_path: Path) -> None:
    unpack_commit(repository, "HEAD~1", tmp_path / "files")
    assert (tmp_path / "files/module.py").read_text() == "1\n"


def test_the_working_tree_is_unpacked_as_it_is_and_stays_so(repository: Path, tmp_path: Path) -> None:
    (repository / "module.py").write_text("3\n")
    (repository / "added.py").write_text("4\n")
    (repository / "ignored").write_text("5\n")
    status, objects = git(repository, "status", "--porcelain"), git(repository, "count-objects")
    unpack_working_tree(repository, tmp_path / "files")
    files = {path.name: path.read_text() for path in (tmp_path / "files").iterdir()}
    assert files == {".gitignore": "ignored\n", "module.py": "3\n", "added.py": "4\n"}
    assert (git(repository, "status", "--porcelain"), git(repository, "count-objects")) == (status, objects)


def test_equal_files_are_known_as_such_whatever_stands_beside_the_package(repository: Path, tmp_path: Path) -> None:
    before = unpack_commit(repository, "HEAD", tmp_path / "commit")
    (repository / "docs").mkdir()
    (repository / "docs/page.md").write_text("A page.\n")
    assert unpack_working_tree(repository, tmp_path / "with a page") == before
    (repository / "module.py").write_text("3\n")
    assert unpack_working_tree(repository, tmp_path / "with a change") != before


def test_a_shallow_clone_says_what_to_do(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "HEAD~1")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", "shallow")
    with pytest.raises(MarketDataStoreError, match=f"^{first}: .* shallow clone; run `git fetch --unshallow` first$"):
        unpack_commit(tmp_path / "shallow", first, tmp_path / "files")


def test_what_is_not_a_clone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MarketDataStoreError, match="not a clone"):
        unpack_working_tree(tmp_path, tmp_path / "files")


@pytest.mark.parametrize("commit", ["0000000", "--help-me", "HEAD:src"])
def test_an_unknown_commit_is_one_line_and_exit_code_2(commit: str) -> None:
    command = [sys.executable, "-m", "benchmarks.against", "--", commit]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {commit}: ")
