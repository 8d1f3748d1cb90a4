"""The files of a version, from git: those of a commit, or the working tree as it is now."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

from market_data_store.errors import MarketDataStoreError

#: Folders that leave the installed package as it is.
_BESIDE_THE_PACKAGE = (".ci", "benchmarks", "docs", "examples", "tests")


def unpack_commit(root: Path, commit: str, directory: Path) -> str:
    """Unpack a commit of the repository into the directory; returns a list of its files that names their contents.

    Raises `MarketDataStoreError` when the repository does not have the commit.
    """
    _require_repository(root)
    name = f"{commit}^{{commit}}"
    if _run(root, ["rev-parse", "--quiet", "--verify", "--end-of-options", name]).returncode:
        if _git(root, ["rev-parse", "--is-shallow-repository"]) == "true":
            raise MarketDataStoreError(f"{commit}: not in this shallow clone; run `git fetch --unshallow` first")
        raise MarketDataStoreError(f"{commit}: {root} has no such commit; give one that `git log` shows")
    return _unpack(root, name, directory)


def unpack_working_tree(root: Path, directory: Path) -> str:
    """The same of the working tree: files that are changed or new count, ignored ones do not.

    The repository stays as it is: index and objects are written elsewhere.
    """
    _require_repository(root)
    with tempfile.TemporaryDirectory() as scratch:
        objects = root / _git(root, ["rev-parse", "--git-path", "objects"])
        elsewhere = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects.resolve()),
        }
        _git(root, ["add", "--all", "."], elsewhere)
        return _unpack(root, _git(root, ["write-tree"], elsewhere), directory, elsewhere)


def _unpack(root: Path, tree: str, directory: Path, variables: dict[str, str] | None = None) -> str:
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        _git(root, ["archive", "--format=tar", f"--output={archive.name}", tree], variables)
        with tarfile.open(archive.name) as files:
            files.extractall(directory, filter="data")
    lines = _git(root, ["ls-tree", tree], variables).splitlines()
    return "\n".join(line for line in lines if line.rpartition("\t")[2] not in _BESIDE_THE_PACKAGE)


def _require_repository(root: Path) -> None:
    try:
        found = _run(root, ["rev-parse", "--git-dir"])
    except FileNotFoundError as error:
        raise MarketDataStoreError("git is not installed; versions are built from its commits") from error
    if found.returncode:
        raise MarketDataStoreError(f"{root}: not a clone of the repository ({found.stderr.strip()})")


def _git(root: Path, arguments: list[str], variables: dict[str, str] | None = None) -> str:
    done = _run(root, arguments, variables)
    if done.returncode:
        raise MarketDataStoreError(f"git {arguments[0]} in {root}: {done.stderr.strip()}")
    return done.stdout.strip()


def _run(root: Path, arguments: list[str], variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **(variables or {})}
    return subprocess.run(["git", *arguments], cwd=root, env=env, capture_output=True, text=True, check=False)
