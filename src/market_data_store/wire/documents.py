"""Metadata in a column of texts: each is a JSON object, as exports write it."""

from __future__ import annotations

from typing import Any

from market_data_store.datasets import Dataset
from market_data_store.wire.fields import fields_of
from market_data_store.wire.text import TableRow, python_value


def with_documents(dataset: Dataset, rows: list[TableRow]) -> list[TableRow]:
    """Return rows whose metadata is decoded where a column has it as the text of a JSON object."""
    names = [name for f in fields_of(dataset) if f.rule.keeps_unknown for name in f.names]
    for row in rows:
        for name in names:
            if isinstance(row.get(name), str):
                row[name] = document(row[name])
    return rows


def document(value: Any) -> Any:
    """Return the value that a text of JSON stands for; another value as it is."""
    return python_value(value) if isinstance(value, str) else value
