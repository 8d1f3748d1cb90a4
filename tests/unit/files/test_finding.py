"""Paths, patterns, directories and pipes: which files a command line means."""

from __future__ import annotations

import io
import os
import resource
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from market_data_store.errors import MarketDataStoreError
from market_data_store.files.finding import found_files
from market_data_store.files.options import Undecided


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv", "deep/c.NDJSON.gz", "deep/README.md", ".hidden/d.csv", "deep/e.gz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(*given: str, recursive: bool = False) -> list[str]:
    with found_files(given, recursive=recursive) as found:
        return [path.name for path in found.files]


def test_patterns_are_sorted_and_each_file_is_meant_once(tree: Path) -> None:
    assert names("*.csv") == ["a.csv", "b.csv"]
    assert names("b.csv", "*.csv", str(tree / "a.csv")) == ["b.csv", "a.csv"]
    assert names("**/*.gz") == ["c.NDJSON.gz", "e.gz"]


def test_a_file_whose_name_is_a_pattern_is_itself(tree: Path) -> None:
    (tree / "[ab].csv").write_text("")
    assert names("[ab].csv") == ["[ab].csv"]


def test_a_directory_is_read_if_that_is_asked_for(tree: Path) -> None:
    with found_files(["."], recursive=True) as found:
        assert [str(path) for path in found.files] == ["a.csv", "b.csv", "deep/c.NDJSON.gz"]
        assert found.lines == ["2 other files are left out: README.md, e.gz"]
    with pytest.raises(Undecided, match="a directory; give --recursive, or the files, such as 'deep/"):
        names("deep")


@pytest.mark.parametrize(
    ("given", "said"),
    [("c.csv", "c.csv: no such file"), ("*.parquet", r"\*.parquet: no file has such a name")],
)
@pytest.mark.usefixtures("tree")
def test_a_name_without_a_file_is_one_line(given: str, said: str) -> None:
    with pytest.raises(Undecided, match=said):
        names("a.csv", given)


@pytest.mark.usefixtures("tree")
def test_a_directory_without_rows_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Undecided, match=r"empty: no name in it ends in \.csv"):
        names("empty", recursive=True)


def test_standard_input_is_copied_and_its_size_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"ts,price\n" * 1_000)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with found_files(["-"], recursive=False) as found:
        (path,) = found.files
        assert path.read_bytes() == b"ts,price\n" * 1_000
        assert found.lines == [f"standard input: 9,000 bytes are kept in {tmp_path} while they are loaded"]
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_with_a_name_is_copied(tmp_path: Path) -> None:
    pipe = tmp_path / "rows.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[b"ts\n1\n"])
    writer.start()
    with found_files([str(pipe)], recursive=False) as found:
        assert found.files[0].name == "rows.csv"
        assert found.files[0].read_bytes() == b"ts\n1\n"
    writer.join()


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x" * 3_000_000)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Python ignores SIGXFSZ, so that a file beyond the limit is an error like that of a full disk.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(MarketDataStoreError) as error, found_files(["-"], recursive=False):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value) == (
        f"standard input, of which there are more than 1,000,000 bytes, does not fit into {tmp_path}; set TMPDIR to a "
        "directory with more room; nothing was sent"
    )
    assert list(tmp_path.iterdir()) == []
