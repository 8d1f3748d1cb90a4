"""The declarations: what the decoder, the writer and the neighbours rely on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Column, Text
from sqlalchemy.dialects.postgresql import JSONB

from market_data_store.datasets import (
    DATASETS,
    ENQUEUED_AT,
    MAX_KEY_LENGTH,
    Dataset,
    Rule,
    dataset_named,
)
from market_data_store.errors import InvalidMessage
from market_data_store.postgres.tables import metadata

#: Bytes of the largest entry that a btree page of 8 KiB takes.
BTREE_ENTRY_BYTES = 2_704

every_dataset = pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)


def rule(column: Column[Any]) -> Rule:
    found = column.info["rule"]
    assert isinstance(found, Rule)
    return found


def names(column: Column[Any]) -> tuple[str, ...]:
    return (str(column.name), *rule(column).aliases)


def test_the_datasets_write_to_the_tables_that_the_neighbours_read() -> None:
    assert {name: dataset.table.name for name, dataset in DATASETS.items()} == {
        "bars": "bars_ohlcv",
        "ticks": "tick_data",
        "quotes": "quotes",
        "options": "options_snap",
        "fundamentals": "fundamentals",
        "news": "news",
        "signals": "signals",
    }
    own = {"attempts", "dead_letters", "first_takes", "job_runs", "leases", "replay_keys", "upkeep_runs"}
    own |= {"added_columns", "unknown_fields", "partitions_leaving", "partitions_wanted"}
    assert set(metadata.tables) == {d.table.name for d in DATASETS.values()} | own


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("bars", ("provider", "symbol", "interval", "ts")),
        ("ticks", ("provider", "symbol", "ts", "seq")),
        ("quotes", ("provider", "symbol", "ts", "seq")),
        ("options", ("provider", "symbol", "expiry", "strike", "option_type", "ts")),
        ("fundamentals", ("provider", "symbol", "ts")),
        ("news", ("provider", "ts", "id")),
        ("signals", ("provider", "symbol", "ts", "name")),
    ],
)
def test_two_rows_are_the_same_row_when_their_keys_are(name: str, key: tuple[str, ...]) -> None:
    assert DATASETS[name].key == key


def test_the_tables_have_the_columns_that_the_tick_replayer_reads() -> None:
    assert {"provider", "symbol", "price", "ts", "size", "bid", "ask"} <= set(metadata.tables["tick_data"].c.keys())


@every_dataset
def test_a_message_fills_every_column_but_the_moment_of_its_enqueueing(dataset: Dataset) -> None:
    assert {str(c.name) for c in dataset.table.columns} == {*(str(c.name) for c in dataset.columns), ENQUEUED_AT}
    assert sorted((*dataset.key, *dataset.values)) == sorted(str(c.name) for c in dataset.columns)
    assert not dataset.table.columns[ENQUEUED_AT].nullable


@every_dataset
def test_key_columns_come_first_in_key_order_and_are_never_null(dataset: Dataset) -> None:
    assert tuple(str(c.name) for c in dataset.columns)[: len(dataset.key)] == dataset.key
    assert all(not c.nullable for c in dataset.table.primary_key)


@every_dataset
def test_every_text_column_compares_bytewise(dataset: Dataset) -> None:
    texts = [c.type for c in dataset.table.columns if isinstance(c.type, Text)]
    assert texts
    assert {t.collation for t in texts} == {"C"}


@every_dataset
def test_a_field_of_a_row_fills_one_column_only_but_for_the_id_of_a_trade(dataset: Dataset) -> None:
    every_name = Counter(name for column in dataset.columns for name in names(column))
    assert [name for name, number in every_name.items() if number > 1] == ["trade_id"] * (dataset.name == "ticks")


#: What version 0.4 knew. Its hashes cover all other fields, so these lists never change.
KNOWN_IN_0_4_0 = {
    "ticks": "provider vendor source symbol ticker ts timestamp timestamp_utc time datetime seq sequence trade_id "
    "price last_price size quantity qty bid ask",
    "quotes": "provider vendor source symbol ticker ts timestamp timestamp_utc time datetime seq sequence trade_id "
    "bid bid_price ask ask_price last last_price bid_size ask_size volume",
}


@pytest.mark.parametrize("name", KNOWN_IN_0_4_0)
def test_what_came_after_version_0_4_0_counts_in_a_hash_as_unknown(name: str) -> None:
    known = {name for column in DATASETS[name].columns if not rule(column).later for name in names(column)}
    assert known == set(KNOWN_IN_0_4_0[name].split())


@every_dataset
def test_columns_that_came_later_are_behind_the_others_and_may_be_left_out(dataset: Dataset) -> None:
    columns = [str(c.name) for c in dataset.table.columns]
    later = [str(c.name) for c in dataset.columns if rule(c).later]
    assert columns[columns.index(ENQUEUED_AT) + 1 :] == later
    assert all(dataset.table.columns[name].nullable for name in later)


@every_dataset
def test_a_content_hash_is_made_of_columns_that_are_no_key(dataset: Dataset) -> None:
    for column in dataset.columns:
        content = set(rule(column).content_hash) - {"*"}
        assert content <= set(dataset.values)
        assert not content or column.primary_key


@every_dataset
def test_the_longest_key_fits_into_an_index_entry(dataset: Dataset) -> None:
    size = 0
    for column in dataset.table.primary_key:
        if not isinstance(column.type, Text):
            size += 8
        elif rule(column).letters:
            size += 2
        else:
            size += MAX_KEY_LENGTH * 4 + 8
    assert size < BTREE_ENTRY_BYTES


@every_dataset
def test_every_dataset_has_metadata_which_may_be_left_out(dataset: Dataset) -> None:
    assert [str(c.name) for c in dataset.columns if isinstance(c.type, JSONB)] == ["metadata"]
    assert dataset.table.columns["metadata"].nullable


def test_a_dataset_is_found_by_its_name() -> None:
    assert all(dataset_named(name) is dataset and dataset.name == name for name, dataset in DATASETS.items())


@pytest.mark.parametrize("name", ["", "Bars", "bars_ohlcv", "bars\0", "dead_letters", None, 7, ["bars"], {"bars": 1}])
def test_an_unknown_dataset_is_an_invalid_message_that_lists_the_known_ones(name: object) -> None:
    with pytest.raises(InvalidMessage, match="is unknown; use one of bars, ticks, quotes") as caught:
        dataset_named(name)
    assert str(caught.value).startswith("dataset: ")


def test_a_very_long_name_of_a_dataset_is_not_repeated_in_full() -> None:
    with pytest.raises(InvalidMessage) as caught:
        dataset_named("x" * 10_000_000)
    assert len(str(caught.value)) < 300


def test_the_datasets_cannot_be_changed_at_run_time() -> None:
    with pytest.raises(TypeError):
        DATASETS["bars"] = DATASETS["ticks"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        DATASETS["bars"].name = "other"  # type: ignore[misc]
