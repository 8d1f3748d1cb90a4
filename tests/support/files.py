"""A file as `mds load` would store it, without any server."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from market_data_store.datasets import DATASETS
from market_data_store.files.options import Options
from market_data_store.files.plan import make_plan
from market_data_store.files.planned import Plan
from market_data_store.files.rows import made_rows
from market_data_store.producer.encoding import encode
from market_data_store.producer.occurrences import Occurrences
from market_data_store.producer.tables import frame_of, numbered
from market_data_store.wire.arrow import json_values, read_table
from market_data_store.wire.columns import decode
from market_data_store.wire.fields import fields_of, names_of
from market_data_store.wire.hashes import OCCURRENCE
from market_data_store.wire.rows import read_rows

Row = dict[str, Any]
_NAMED: tuple[str, ...] = ("provider", "symbol", "interval")


def options(dataset: str, **given: Any) -> Options:
    """Options of a load: symbol, provider and interval are constants, `map` has columns by field."""
    constants: dict[str, str] = {name: given.pop(name) for name in _NAMED if name in given}
    constants |= given.pop("set", {})
    columns = {name: tuple(text.split("+")) for name, text in given.pop("map", {}).items()}
    scale = {name: Decimal(factor) for name, factor in given.pop("scale", {}).items()}
    return Options(dataset=DATASETS[dataset], constants=constants, columns_of=columns, scale=scale, **given)


def planned(path: Path, dataset: str, **given: Any) -> Plan:
    """The plan of a file."""
    return make_plan(path, options(dataset, **given))


def stored(plan: Plan) -> tuple[list[Row], list[str]]:
    """The rows that a worker would store, in the file's order, and the reasons of rejects."""
    dataset = plan.options.dataset
    rows: list[tuple[int, Row]] = []
    reasons: list[str] = []
    occurrences = Occurrences() if names_of(dataset).numbered else None
    for made in made_rows(plan):
        if made.table is None:
            sent = read_rows(dataset, encode(made.bad, 0), made.constants)
        else:
            frame = frame_of(made.table)
            standard = {**made.constants, OCCURRENCE: 1} if occurrences is not None else made.constants
            frame = frame if occurrences is None else numbered(dataset, frame, standard, occurrences)
            sent = read_table(dataset, frame, standard)
        decoded = decode(dataset, [sent], [0])
        reasons += [reject.reason for reject in decoded.rejects[0]]
        columns = {f.name: json_values(decoded.rows.column(f.name)) for f in fields_of(dataset)}
        places = decoded.rows.column("#position").to_pylist()
        rows += [
            (made.rows[place].as_py(), {name: values[at] for name, values in columns.items() if values[at] is not None})
            for at, place in enumerate(places)
        ]
    return [row for _, row in sorted(rows, key=lambda item: item[0])], reasons
