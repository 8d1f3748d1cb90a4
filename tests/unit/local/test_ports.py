"""The ports of `mds up` stay the same from start to start, as long as they are free."""

from __future__ import annotations

import socket
from pathlib import Path

from market_data_store.local import free_port
from market_data_store.local.ports import Ports


def test_a_port_is_kept_for_the_next_start(tmp_path: Path) -> None:
    said: list[str] = []
    first = Ports(tmp_path, said.append)
    chosen = [first.port("postgres"), first.port("web", usual=free_port())]
    first.keep()
    second = Ports(tmp_path, said.append)
    assert [second.port("postgres"), second.port("web", usual=1)] == chosen
    assert said == []


def test_a_port_that_is_taken_is_changed_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    first = Ports(tmp_path, said.append)
    before = first.port("postgres")
    first.keep()
    with socket.create_server(("127.0.0.1", before)):
        after = Ports(tmp_path, said.append).port("postgres")
    assert after != before
    assert said == [f"Port {before} of postgres is taken: it listens on {after}"]


def test_what_is_no_port_in_the_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "ports").write_text("POSTGRES=none\nVALKEY=99999\n")
    (tmp_path / "ports").chmod(0o600)
    said: list[str] = []
    ports = Ports(tmp_path, said.append)
    assert 1024 < ports.port("postgres") < 65_536
    assert 1024 < ports.port("valkey") < 65_536
