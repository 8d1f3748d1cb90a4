"""What a migration does for the datasets that are to have partitions: it partitions empty tables, and makes some ahead.

A table with rows stays plain until `mds partitions convert`, which copies them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.datasets.registry import spans
from market_data_store.datasets.spans import Span
from market_data_store.errors import DatasetUnavailable, MigrationFailed
from market_data_store.postgres import partitioning
from market_data_store.postgres.connection import connect, first_line
from market_data_store.postgres.converting import convert
from market_data_store.postgres.partitions import is_partitioned, kind_of, now


def partition_tables(url: str, say: Callable[[str], None]) -> None:
    """Do what is due, each dataset by itself; `say` gets a line for each step.

    Safe to call again, and in several processes at once. Raises `DatabaseUnavailable`, and `MigrationFailed`, which
    names each dataset whose table cannot have partitions; the others are done.
    """
    wanted = spans()
    if not wanted:
        return
    wrong: list[str] = []
    with connect(url) as connection:
        for name, span in wanted.items():
            try:
                for line in _partitioned(connection, DATASETS[name], span):
                    say(f"{name}: {line}")
            except DatasetUnavailable as error:
                wrong.append(f"{name}: {error.reason}")
            except psycopg.Error as error:
                wrong.append(f"{name}: {first_line(error)}")
    if wrong:
        raise MigrationFailed("; ".join(wrong))


def due_partitions(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """Yield a line for each table that is to be partitioned and is not, or cannot be."""
    for name, span in spans().items():
        dataset = DATASETS[name]
        if kind_of(connection, dataset) is None or is_partitioned(connection, dataset):
            continue
        reason = partitioning.refusal(connection, dataset)
        yield f"{name}: {reason or _convert(dataset, span)}"


def _partitioned(connection: psycopg.Connection[Any], dataset: Dataset, span: Span) -> Iterator[str]:
    if not is_partitioned(connection, dataset):
        if (reason := partitioning.refusal(connection, dataset)) is not None:
            raise DatasetUnavailable(dataset.name, None, reason)
        if convert(connection, dataset, span, only_empty=True) is None:
            yield _convert(dataset, span)
            return
        yield f"partition the empty table {dataset.table.name} by {span.value}"
    made = partitioning.make_ahead(connection, dataset, span, now(connection))
    if made:
        yield f"make {len(made)} partitions ahead"


def _convert(dataset: Dataset, span: Span) -> str:
    table = dataset.table.name
    return f"the table {table} is plain; `mds partitions convert {dataset.name}` partitions it by {span.value}"
