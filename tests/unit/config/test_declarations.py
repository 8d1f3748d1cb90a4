"""Where declarations of datasets are read from: files, the working directory, installed packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest

from market_data_store import config
from market_data_store.config.declarations import declarations
from market_data_store.datasets import DATASETS, dataset_named
from market_data_store.errors import ConfigurationError, InvalidMessage

BOOK = '[book]\nkey = ["provider", "ts"]\ncolumns = { provider = "text", ts = "timestamptz" }\n'


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    config.settings.cache_clear()
    DATASETS.forget()
    yield tmp_path
    config.settings.cache_clear()
    DATASETS.forget()


def install(directory: Path, name: str, text: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package with a declaration, and its metadata, where Python finds packages."""
    package = directory / "site" / name
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    if text is not None:
        (package / "datasets.toml").write_text(text)
    metadata = package.parent / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[market_data_store.datasets]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(package.parent))
    invalidate_caches()


def test_a_file_of_the_working_directory_is_read(directory: Path) -> None:
    assert declarations(()) == []
    (directory / "datasets.toml").write_text(BOOK)
    assert [origin for origin, _ in declarations(())] == ["datasets.toml"]
    assert dataset_named("book").key == ("provider", "ts")


def test_a_file_of_the_working_directory_that_others_can_write_is_refused(directory: Path) -> None:
    (directory / "datasets.toml").write_text(BOOK)
    (directory / "datasets.toml").chmod(0o666)
    with pytest.raises(ConfigurationError, match=r"datasets\.toml: others can write it; take that right from them"):
        declarations(())


def test_the_files_of_the_setting_are_read_instead(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "datasets.toml").write_text("broken")
    (directory / "a.toml").write_text(BOOK)
    (directory / "b.toml").write_text(BOOK.replace("book", "depth"))
    monkeypatch.setenv("MDS_DATASETS", "a.toml, b.toml")
    assert [*DATASETS][-2:] == ["book", "depth"]


def test_a_package_is_found_by_its_entry_point(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(directory, "acme_feeds", BOOK, monkeypatch)
    assert [origin for origin, _ in declarations(())] == ["acme_feeds/datasets.toml"]
    assert "book" in DATASETS
    sys.modules.pop("acme_feeds")


def test_what_cannot_be_read_is_one_line_each(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "latin.toml").write_bytes(b"# caf\xe9")
    install(directory, "acme_empty", None, monkeypatch)
    with pytest.raises(ConfigurationError) as caught:
        declarations(("latin.toml", "nowhere.toml"))
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("latin.toml: not UTF-8 text (")
    assert first.endswith("); save it as UTF-8")
    assert second == "nowhere.toml: cannot be read (No such file or directory); mend the path"
    assert third.startswith("acme_empty/datasets.toml: cannot be read (FileNotFoundError: ")
    sys.modules.pop("acme_empty", None)


def test_a_built_in_dataset_is_found_without_a_look_at_declarations(directory: Path) -> None:
    (directory / "datasets.toml").write_text("broken")
    assert dataset_named("bars").name == "bars"
    with pytest.raises(ConfigurationError, match=r"datasets\.toml: not TOML: "):
        dataset_named("book")
    (directory / "datasets.toml").write_text(BOOK)
    assert dataset_named("book").name == "book"


def test_a_look_at_declarations_leaves_the_settings_to_be_read_later(directory: Path) -> None:
    """`mds up` makes the tables of declared datasets before it names its servers."""
    (directory / "datasets.toml").write_text(BOOK)
    assert "book" in DATASETS
    assert config.settings.cache_info().currsize == 0


def test_an_unknown_name_is_told_the_declared_ones(directory: Path) -> None:
    (directory / "datasets.toml").write_text(BOOK)
    with pytest.raises(InvalidMessage, match=r"dataset: 'boook' is unknown; use one of bars, .*, signals, book"):
        dataset_named("boook")


def test_retention_may_name_a_declared_dataset(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "datasets.toml").write_text(BOOK)
    monkeypatch.setenv("MDS_RETENTION_DAYS", "book=3,ticks=3")
    assert config.settings().retention_days == {"book": 3, "ticks": 3}
