"""`mds datasets`: lists the datasets with their fields."""

from __future__ import annotations

import json
from typing import Any

import click

from market_data_store.cli.columns import aligned
from market_data_store.datasets import DATASETS, Dataset
from market_data_store.wire.fields import Field, fields_of

#: What a user calls the types of Postgres.
_KINDS = {
    "text": "text",
    "text[]": "list of texts",
    "float8": "number",
    "int8": "integer",
    "int4": "integer",
    "bool": "true or false",
    "timestamptz": "time",
    "date": "date",
    "jsonb": "object",
}


@click.command("datasets")
@click.argument("dataset", required=False, type=click.Choice(list(DATASETS)))
@click.option("--json", "as_json", is_flag=True, help="Print a list for programs.")
def command(dataset: str | None, as_json: bool) -> None:
    """List the fields of DATASET, or of all datasets, with their kinds and the other names that they may have.

    A row needs the fields of the key and those that are required; a field that is filled in may be left out. Rows with
    equal keys are one row. Fields that a dataset does not know are kept in metadata. Needs no server.

    \b
    mds datasets
    mds datasets bars
    mds datasets --json
    """
    wanted = [found for name, found in DATASETS.items() if dataset in (None, name)]
    if as_json:
        click.echo(json.dumps([_object(each) for each in wanted], indent=2))
        return
    for number, each in enumerate(wanted):
        if number:
            click.echo()
        click.echo(f"{each.name}: table {each.table.name}, key {', '.join(each.key)}")
        cells = [(f.name, _KINDS[f.kind.copy_type], _need(f), ", ".join(f.rule.aliases)) for f in fields_of(each)]
        for line in aligned(("field", "kind", "needed", "other names"), cells):
            click.echo(f"  {line}")


def _need(f: Field) -> str:
    if f.key:
        return "key" if f.required else "key, filled in"
    return "required" if f.required else ""


def _object(dataset: Dataset) -> dict[str, Any]:
    fields = [
        {
            "name": f.name,
            "kind": _KINDS[f.kind.copy_type],
            "key": f.key,
            "required": f.required,
            "aliases": list(f.rule.aliases),
        }
        for f in fields_of(dataset)
    ]
    return {"name": dataset.name, "table": dataset.table.name, "key": list(dataset.key), "fields": fields}
