"""Each reason has a pattern that holds nothing of the message, made from the same template."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.decoding import decode_frame, decode_rows

from market_data_store import config
from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import InvalidMessage, Reason
from market_data_store.wire.arrow import Frame, pack
from market_data_store.wire.fields import fields_of
from market_data_store.wire.reasons import reason_of
from market_data_store.worker.calls import parsed
from market_data_store.worker.envelope import Envelope

#: Each stands in a value, a symbol, a number or a name of a message below, and in no pattern.
SECRETS = ["SECRET", "31337", "31,337", "TOPSYMBOL"]
VALUES: list[Any] = [
    "SECRET",
    "it's SECRET",
    'say "SECRET"',
    "it's \"SECRET\" and 'TOPSYMBOL",
    "' is not a number; SECRET '",
    "x... (5 characters) SECRET",
    "x' SECRET" + 100 * "y",
    "SECRET" + 90 * "'",
    100 * '"' + "SECRET",
    "'SECRET... (31,337 characters)" + 200 * "x",
    "SECRET\nTOPSYMBOL\n" + 5_000 * "z",
    "\0SECRET",
    "\ud800SECRET",
    "SECRET… {TOPSYMBOL}]",
    "{} {0} {SECRET} {value}",
    "",
    313_370_000_000_000_000_000_000,
    -31337e300,
    float("nan"),
    float("-inf"),
    31337.31337,
    True,
    None,
    ["SECRET", 31337, {"TOPSYMBOL": "'"}],
    {"SECRET": "TOPSYMBOL 31337"},
    {"it's": 'SECRET"', "long": 500 * "x'"},
    b"SECRET",
    Decimal("31337e999"),
    datetime(3133, 7, 3, 13, 37, tzinfo=UTC),
    {"__type__": "bytes", "__value__": "SECRET"},
]

Found = Iterator[tuple[str, str | None]]


def reasons_of(dataset: Dataset, rows: Any, defaults: Any = None) -> Found:
    """Reasons and patterns of what is refused, for JSON text, for objects or for a table."""
    decode: Any = decode_frame if isinstance(rows, Frame) else decode_rows
    try:
        yield from ((reject.reason, reject.pattern) for reject in decode(dataset, rows, defaults or {}, 0).rejects)
    except InvalidMessage as error:
        yield str(error), error.pattern


def good_row(dataset: Dataset) -> dict[str, Any]:
    numbers = {
        field.name: 1
        for field in fields_of(dataset)
        if not field.key and not field.kind.is_text and field.name != "metadata"
    }
    return {**numbers, "provider": "p", "symbol": "s", "ts": "2024-01-02", "interval": "1m", "name": "n", "title": "t"}


def frame(row: dict[str, Any]) -> Frame | None:
    """The row as a table, where Arrow has a type for its values."""
    try:
        return Frame(pa.Table.from_pylist([row, row]))
    except (pa.ArrowException, OverflowError, ValueError, TypeError, UnicodeError):
        return None


def rows_reasons(dataset: Dataset) -> Found:
    good = good_row(dataset)
    for value in VALUES:
        for name in [*(field.name for field in fields_of(dataset)), "SECRET"]:
            row = {**good, name: value}
            yield from reasons_of(dataset, [row])
            yield from reasons_of(dataset, [good], {name: value})
            table = frame(row)
            if table is not None:
                yield from reasons_of(dataset, table)
            try:
                text = json.dumps([row]).encode()
            except TypeError:
                continue
            yield from reasons_of(dataset, text)
        yield from reasons_of(dataset, [value])
        yield from reasons_of(dataset, [good], value)
    yield from reasons_of(dataset, b'[{"SECRET": "TOPSYMBOL", "close": ' + 5_000 * b"31337" + b"}]")
    yield from reasons_of(dataset, b'[{"SECRET": "TOPSYMBOL"}, {"SECRET" 31337}]')
    yield from reasons_of(dataset, b'{"SECRET": 31337}')
    yield from reasons_of(dataset, b'[{"ts": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]")


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)
def test_a_pattern_holds_nothing_of_a_row(dataset: Dataset) -> None:
    found = set(rows_reasons(dataset))
    patterns = {pattern for _, pattern in found}
    assert sum("SECRET" in reason for reason, _ in found) > 50
    assert None not in patterns
    for pattern in patterns:
        assert pattern
        assert not any(secret in pattern for secret in SECRETS), pattern
        assert len(pattern) <= 300, pattern
    assert len(patterns) < 100, "a value, in whatever form, would make more of them"
    assert "the value cannot be decoded" not in patterns, "each reason is made on purpose"
    assert patterns >= {
        "provider: null (key column); give it in the row or in defaults",
        "provider: … is too long; send at most 128 characters",
        "defaults: ts: … is not a time; send ISO 8601, or a number of s, ms, us or ns since 1970",
        "defaults: expected an object, got …",
        "row: expected an object, got …",
        "rows: expected a list of objects, got …",
        "rows: not readable as JSON",
    }


def test_a_pattern_is_the_reason_without_its_values() -> None:
    for dataset in DATASETS.values():
        for reason, pattern in rows_reasons(dataset):
            begin, _, end = (pattern or "").partition("…")
            assert reason.startswith(begin), (reason, pattern)
            assert reason.endswith(end), (reason, pattern)


def body(*args: Any, **kwargs: Any) -> bytes:
    return json.dumps([args, kwargs, {}]).encode()


def table(dataset: str, defaults: bytes = b"{}", **columns: list[Any]) -> bytes:
    return pack(dataset, defaults, Frame(pa.table(columns)))


def twice() -> bytes:
    """A table in which two columns have one name."""
    return pack("bars", b"{}", Frame(pa.Table.from_arrays([pa.array(["x"])] * 2, names=["SECRET", "SECRET"])))


MESSAGES = [
    (body("SECRET", []), "dataset: … is unknown; use one of bars, ticks, quotes, options, fundamentals, news, signals"),
    (body("bars", "SECRET"), "rows: expected a list of objects, got …"),
    (body("bars", {"SECRET": 31337}), "rows: expected a list of objects, got …"),
    (body("bars", [], ["SECRET"]), "defaults: expected an object, got …"),
    (body("bars", [], 31337, 31337), "args: … given, store.write takes dataset, rows and defaults"),
    (body("bars", [], SECRET=31337), "kwargs: … is unknown; store.write takes dataset, rows and defaults"),
    (body("bars", defaults={"SECRET": 1}), "rows: missing; send store.write(dataset, rows, defaults=None)"),
    (b'{"SECRET": 31337}', "body: not the JSON of a Celery task ([args, kwargs, embed])"),
    (b'[[SECRET, "31337', "body: not the JSON of a Celery task ([args, kwargs, embed])"),
    (body("bars", ["SECRET" * 100_000]), "body: … bytes, at most … (MDS_MAX_MESSAGE_BYTES)"),
]
TABLES = [
    (table("SECRET", x=[31337]), MESSAGES[0][1]),
    (table("bars", b"SECRET", x=[31337]), "body: dataset or defaults cannot be read"),
    (table("bars", b'["SECRET"]', x=[31337]), "defaults: expected an object, got …"),
    (twice(), "…: two columns have this name; rename one"),
    (table("bars", x=["SECRET"])[:100], "body: not a readable Arrow IPC stream (ArrowInvalid)"),
    (table("bars", x=pa.nulls(31_337)), "rows: … rows in … bytes; give each row its key columns"),
]


def decode(envelope: Envelope) -> None:
    call, _ = parsed(envelope)
    assert not isinstance(call.rows, Frame)
    decode_rows(call.dataset, call.rows, call.defaults, 0)


@pytest.mark.parametrize(
    ("envelope", "pattern"),
    [
        *((Envelope("t", each, 0, True, None, None), pattern) for each, pattern in MESSAGES),
        *(
            (Envelope("t", each, 0, True, None, None, content_type="application/vnd.apache.arrow.stream"), pattern)
            for each, pattern in TABLES
        ),
        (
            Envelope("t", b"", 0, True, None, None, unusable=Reason.of("content_type: {} is wrong", "SECRET")),
            "content_type: … is wrong",
        ),
    ],
)
def test_a_pattern_holds_nothing_of_a_message(
    envelope: Envelope, pattern: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MDS_MAX_MESSAGE_BYTES", "500000")
    config.settings.cache_clear()
    try:
        with pytest.raises(InvalidMessage) as refused:
            decode(envelope)
    finally:
        config.settings.cache_clear()
    assert refused.value.pattern == pattern


def test_values_that_look_like_a_template_stay_values() -> None:
    assert Reason.of("{} of {known}", "{known} {}", known="one") == Reason("{known} {} of one", "… of one")


def test_an_error_that_a_library_raised_shows_its_text_and_hides_it_in_the_pattern() -> None:
    reason = reason_of(ValueError("SECRET"))
    assert (reason.text, reason.pattern) == ("SECRET", "the value cannot be decoded")


def test_an_error_is_made_of_a_text_or_of_a_reason_and_travels_between_processes() -> None:
    with_pattern = InvalidMessage(Reason.of("rows: {} is wrong", "7"))
    for error, pattern in ((InvalidMessage("rows: 7 is wrong"), None), (with_pattern, "rows: … is wrong")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  # its own
        assert (str(again), again.args, again.pattern) == ("rows: 7 is wrong", ("rows: 7 is wrong",), pattern)
