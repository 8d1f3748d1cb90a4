"""Files of another user, and links: what is not read, and what is not followed."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_IMODE

import pytest

from market_data_store import config
from market_data_store.config.owned_files import read_owned, variables, write_private
from market_data_store.errors import ConfigurationError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
ANOTHER = 13


def test_an_own_file_is_read_and_a_missing_one_is_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("a=1\nB=\n")
    assert variables(tmp_path / ".env") == {"A": "1", "B": ""}
    assert variables(tmp_path / "none") == {}
    assert read_owned(tmp_path / ".env/none") is None
    assert read_owned(tmp_path) is None  # a directory
    os.mkfifo(tmp_path / "pipe")
    assert read_owned(tmp_path / "pipe") is None


@as_root
@pytest.mark.parametrize("name", [".env", ".mds/env"])
def test_a_file_of_another_user_names_no_servers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("DATABASE_URL=postgresql://thief/d\n")
    os.chown(path, ANOTHER, ANOTHER)
    config.settings.cache_clear()
    with pytest.raises(ConfigurationError, match=f"{name}: belongs to user {ANOTHER}; only files of user 0 and of"):
        config.settings()


@as_root
def test_a_link_that_another_user_made_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("A=1")
    link = tmp_path / ".env"
    link.symlink_to(tmp_path / "own")
    assert variables(link) == {"A": "1"}
    os.chown(link, ANOTHER, ANOTHER, follow_symlinks=False)
    with pytest.raises(ConfigurationError, match="belongs to user 13"):
        variables(link)


@pytest.mark.parametrize("mode", [0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=r"others can write it; .* `chmod go-w`"):
        variables(path)


@as_root
def test_a_file_is_shared_with_its_owners_group_only(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1")
    path.chmod(0o664)
    assert variables(path) == {"A": "1"}
    os.chown(path, 0, ANOTHER)
    with pytest.raises(ConfigurationError, match="others can write it"):
        variables(path)


def test_a_written_file_is_for_its_owner_only_and_replaces_a_link(tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "env"
    precious.write_text("precious")
    path.symlink_to(precious)
    previous = os.umask(0)
    try:
        write_private(path, "secret")
    finally:
        os.umask(previous)
    assert (path.read_text(), S_IMODE(path.lstat().st_mode)) == ("secret", 0o600)
    assert precious.read_text() == "precious"
    assert {found.name for found in tmp_path.iterdir()} == {"precious", "env"}
