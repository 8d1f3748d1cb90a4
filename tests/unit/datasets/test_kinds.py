"""The table of kinds covers what the datasets declare, and says so about a type that it does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table
from sqlalchemy.dialects.postgresql import ARRAY

import market_data_store
from market_data_store.datasets import DATASETS, Dataset, Rule
from market_data_store.errors import ConfigurationError
from market_data_store.wire.fields import fields_of
from market_data_store.wire.kinds import kind_of

every_dataset = pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)


KINDS = {"text", "text[]", "int4", "int8", "date", "timestamptz", "float8", "jsonb", "bool"}


@every_dataset
def test_each_declared_column_has_a_kind(dataset: Dataset) -> None:
    assert [f.name for f in fields_of(dataset)] == [column.name for column in dataset.columns]
    assert {f.kind.copy_type for f in fields_of(dataset)} <= KINDS


def test_a_type_without_a_kind_is_named_with_its_column() -> None:
    table = Table("prices", MetaData(), Column("price", LargeBinary(), info={"rule": Rule()}))
    with pytest.raises(
        ConfigurationError, match=r"prices\.price: columns of type LargeBinary.* are not supported; use one"
    ):
        kind_of(table.columns["price"])


@every_dataset
def test_only_metadata_keeps_unknown_fields(dataset: Dataset) -> None:
    assert [f.name for f in fields_of(dataset) if f.rule.keeps_unknown] == ["metadata"]


def test_an_array_of_anything_but_texts_and_doubles_is_not_supported() -> None:
    table = Table("t", MetaData(), Column("levels", ARRAY(Integer), info={"rule": Rule()}))
    with pytest.raises(ConfigurationError, match="only arrays of Text and of doubles"):
        kind_of(table.columns["levels"])


def test_nothing_else_asks_for_a_type_of_sqlalchemy() -> None:
    package = Path(market_data_store.__file__).parent
    asking = {
        str(file.relative_to(package).with_suffix(""))
        for file in package.rglob("*.py")
        if re.search(r"^\s*(from|import) sqlalchemy\b", file.read_text(), re.MULTILINE)
    }
    assert {name for name in asking if not name.startswith("migrations/")} <= {
        "datasets/catalogue",
        "datasets/declaration",
        "datasets/declared",
        "datasets/evolved",
        "datasets/kinds",
        "postgres/leaving",  # a table under another name
        "postgres/schema",  # its errors, of migrations
        "postgres/tables",
        "wire/kinds",
    }
