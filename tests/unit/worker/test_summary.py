"""What is shown of a message instead of its rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from market_data_store.worker.summary import row_count, summary

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def shown(args: list[Any], kwargs: dict[str, Any], *, as_text: bool = False) -> str:
    text = json.dumps([args, kwargs, EMBED])
    body: Any = text if as_text else text.encode()
    return summary(repr(args), repr(kwargs), body, row_count("", body))


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("kwargs", [{}, {"defaults": {"provider": "ibkr"}}])
def test_dataset_and_rows_stand_for_the_rows(kwargs: dict[str, Any], as_text: bool) -> None:
    assert shown(["bars", [{"symbol": "A"}] * 3], kwargs, as_text=as_text) == "('bars', <~3 rows>)"
    assert shown([], {"dataset": "bars", "rows": [{"symbol": "A"}], **kwargs}, as_text=as_text) == "('bars', <~1 rows>)"


def test_what_the_sender_counted_is_kept() -> None:
    assert summary("('bars', <500 rows>)", "{}", b"", 1) == "('bars', <500 rows>)"


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b'[["' + b"x" * 100, '[["\udcff"]]', None, [["bars"], {}]])
def test_a_message_of_any_kind_is_told_by_its_rows_alone(body: Any) -> None:
    assert summary("secret payload", None, body, row_count("", body)) == "(<~1 rows>)"
