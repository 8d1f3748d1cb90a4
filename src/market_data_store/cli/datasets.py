"""`mds datasets`: lists the datasets with their fields, and checks declarations of a user's own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

from market_data_store.cli.choosing import DATASET, GroupOfDatasets
from market_data_store.cli.columns import aligned
from market_data_store.cli.terminal import printable
from market_data_store.cli.unknown import command as unknown
from market_data_store.config.declarations import declaration_in
from market_data_store.datasets import DATASETS, Dataset
from market_data_store.datasets.declared import declared
from market_data_store.wire.fields import Field, fields_of

#: What a user calls the types of Postgres.
_KINDS = {
    "text": "text",
    "text[]": "list of texts",
    "float8": "number",
    "float8[]": "list of numbers",
    "int8": "integer",
    "int4": "integer",
    "bool": "true or false",
    "timestamptz": "time",
    "date": "date",
    "jsonb": "object",
}


@click.group("datasets", cls=GroupOfDatasets)
def command() -> None:
    """List the fields of all datasets, or of one, with their kinds and the other names that they may have.

    A row needs the fields of the key and those that are required; a field that is filled in may be left out. Rows with
    equal keys are one row. Fields that a dataset does not know are kept in metadata, unless its contract
    says otherwise: `mds datasets unknown` lists those that were seen. All else here needs no server.

    Datasets of your own are declared in a file, see docs/own-datasets.md.

    \b
    mds datasets
    mds datasets bars
    mds datasets --json
    mds datasets check datasets.toml
    mds datasets unknown
    """


@command.command("list")
@click.argument("dataset", required=False, type=DATASET)
@click.option("--json", "as_json", is_flag=True, help="Print a list for programs.")
def list_(dataset: str | None, as_json: bool) -> None:
    """List the fields of DATASET, or of all datasets; `list` may be left out."""
    _show([DATASETS[name] for name in DATASETS if dataset in (None, name)], as_json=as_json)


@command.command("check")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print a list for programs.")
def check(file: str, as_json: bool) -> None:
    """Check the declarations in FILE, a path or shipped:NAME, and show the datasets as the store understands them.

    Prints a line for each thing that is wrong, and then ends with status 2. Needs no server, and looks at no other
    declaration.

    \b
    mds datasets check datasets.toml
    """
    found = declared([declaration_in(file)])
    _show(found.values(), as_json=as_json)
    if not found:
        click.echo(f"{printable(file)}: declares no dataset", err=True)


command.add_command(unknown)


def _show(datasets: Iterable[Dataset], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_object(each) for each in datasets], indent=2))
        return
    for number, each in enumerate(datasets):
        if number:
            click.echo()
        contract = "" if each.unknown == "keep" else f'; unknown = "{each.unknown}"'
        click.echo(f"{each.name}: table {each.table.name}, key {', '.join(each.key)}{contract}")
        cells = [(f.name, _kind(f), _need(f), ", ".join(f.rule.aliases)) for f in fields_of(each)]
        for line in aligned(("field", "kind", "needed", "other names"), cells):
            click.echo(f"  {line}")


def _kind(f: Field) -> str:
    if f.kind.digits is not None:
        precision, scale = f.kind.digits
        return f"exact number ({precision}, {scale})"
    if f.kind.copy_type == "jsonb" and not f.rule.keeps_unknown:
        return "object or list"
    return _KINDS[f.kind.copy_type]


def _need(f: Field) -> str:
    if f.key:
        return "key" if f.required else "key, filled in"
    return "required" if f.required else ""


def _object(dataset: Dataset) -> dict[str, Any]:
    fields = [
        {
            "name": f.name,
            "kind": _kind(f),
            "key": f.key,
            "required": f.required,
            "aliases": list(f.rule.aliases),
        }
        for f in fields_of(dataset)
    ]
    return {
        "name": dataset.name,
        "table": dataset.table.name,
        "key": list(dataset.key),
        "unknown": dataset.unknown,
        "fields": fields,
    }
