"""Opening files: what a line may be."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from market_data_store.errors import InvalidMessage
from market_data_store.files import opening


@pytest.mark.parametrize("text", ["short\n" + "x" * 1_000, "short\n" + "x" * 1_000 + "\n"])
def test_a_line_is_bounded_however_few_bytes_it_takes(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.ndjson.gz"
    path.write_bytes(gzip.compress(text.encode()))
    opened = opening.open_file(path, None)
    assert list(opened.lines()) == text.splitlines(keepends=True)
    monkeypatch.setattr(opening, "LONGEST_LINE", 999)
    with pytest.raises(InvalidMessage, match=r"rows\.ndjson\.gz: line 2 has more than 999 characters"):
        list(opened.lines())
