"""The options of `mds load`, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

import click

from market_data_store.cli.choosing import DATASET
from market_data_store.datasets import dataset_named
from market_data_store.files.options import Options
from market_data_store.producer.lanes import Lane
from market_data_store.protocol import LANES
from market_data_store.wire.moments import DATE, UNITS

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command is asked to do."""

    #: None without `--dataset`.
    options: Options | None
    layouts: Path | None
    lane: Lane
    max_errors: int | None
    dry_run: bool
    as_json: bool
    list_readers: bool
    #: Whether the files in directories are meant.
    recursive: bool
    #: Whether an interrupted load begins anew.
    restart: bool
    #: A file of corrected dead letters.
    letters: str | None


def load_options(function: F) -> F:
    """Give a command the options of a load; it gets them as `request`."""

    def with_request(*args: Any, **given: Any) -> Any:
        own = {name: given.pop(name) for name in _NAMES}
        return function(*args, request=_request(own), **given)

    with_request.__doc__ = function.__doc__
    with_request.__name__ = function.__name__
    decorated: Any = with_request
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    result: F = decorated
    return result


_OPTIONS = (
    click.option("--dataset", type=DATASET, help="Dataset of the rows."),
    click.option("--provider", help="Provider of all rows."),
    click.option("--symbol", help="Symbol of all rows."),
    click.option("--interval", help="Interval of all bars, such as 1m."),
    click.option("--set", "values", multiple=True, metavar="FIELD=VALUE", help="Give FIELD this value in all rows."),
    click.option("--map", "columns", multiple=True, metavar="FIELD=COLUMN[+COLUMN]", help="Fill FIELD from COLUMN."),
    click.option("--columns", "names", metavar="NAME,...", help="Names of the columns of a file without header."),
    click.option("--skip", type=click.IntRange(0), metavar="LINES", help="Skip lines, the header included."),
    click.option("--delimiter", metavar="C", help="What divides cells: a character, tab or space."),
    click.option("--decimal", metavar="C", help="The decimal separator: a point or a comma."),
    click.option("--encoding", metavar="NAME", help="Encoding of the text, such as cp1252."),
    click.option("--time-unit", type=click.Choice([*UNITS, DATE]), help="Unit of times that are numbers."),
    click.option("--time-format", metavar="STRPTIME", help="Format of times, such as '%d/%m/%Y %H:%M'."),
    click.option("--time-zone", metavar="ZONE", help="Zone of times without one, such as America/New_York."),
    click.option("--scale", multiple=True, metavar="FIELD=FACTOR", help="Multiply FIELD, such as open=1e-9."),
    click.option("--records", metavar="PATH", help="Where the list of records is in a JSON file, such as data.bars."),
    click.option("--null", "nulls", multiple=True, metavar="TEXT", help="A text that stands for no value."),
    click.option("--reader", metavar="NAME", help="The vendor's layout of the file; --list-readers lists them."),
    click.option("--layouts", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Your own layouts."),
    click.option("--recursive", is_flag=True, help="Take the files in directories, and in those below."),
    click.option("--restart", is_flag=True, help="Send all rows, also if a load of the same files was interrupted."),
    click.option("--letters", metavar="FILE", help="Send the corrected letters of `mds dead-letters export`."),
    click.option(
        "--lane",
        type=click.Choice(list(LANES)),
        default="backfill",
        show_default=True,
        help="The queue: live delays live rows.",
    ),
    click.option("--max-errors", type=click.IntRange(0), metavar="N", help="Stop if more than N rows are rejected."),
    click.option("--dry-run", is_flag=True, help="Print the plan and the first rows, and send nothing."),
    click.option("--yes", is_flag=True, help="Let the last of several rows with one key win."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    click.option("--list-readers", is_flag=True, help="List the layouts of vendors."),
)
_NAMES = (
    *("dataset", "provider", "symbol", "interval", "values", "columns", "names", "skip", "delimiter", "decimal"),
    *("encoding", "time_unit", "time_format", "time_zone", "scale", "records", "nulls", "reader", "layouts"),
    *("lane", "max_errors", "dry_run", "yes", "as_json", "list_readers", "recursive", "restart", "letters"),
)


def _request(given: Mapping[str, Any]) -> Request:
    return Request(
        options=_options(given) if given["dataset"] is not None else None,
        layouts=given["layouts"],
        lane=given["lane"],
        max_errors=given["max_errors"],
        dry_run=given["dry_run"],
        as_json=given["as_json"],
        list_readers=given["list_readers"],
        recursive=given["recursive"],
        restart=given["restart"],
        letters=given["letters"],
    )


def _options(given: Mapping[str, Any]) -> Options:
    named = {name: given[name] for name in ("provider", "symbol", "interval") if given[name] is not None}
    columns = _pairs("--map", given["columns"], "NAME=COLUMN, such as --map ts=timestamp")
    return Options(
        dataset=dataset_named(given["dataset"]),
        constants={**_pairs("--set", given["values"], "FIELD=VALUE, such as --set interval=1m"), **named},
        columns_of={name: tuple(column.split("+")) for name, column in columns.items()},
        names=tuple(name.strip() for name in given["names"].split(",")) if given["names"] else (),
        skip=given["skip"],
        delimiter=given["delimiter"],
        decimal=given["decimal"],
        encoding=given["encoding"],
        time_unit=given["time_unit"],
        time_format=given["time_format"],
        time_zone=given["time_zone"],
        scale={name: _factor(name, text) for name, text in _pairs("--scale", given["scale"], "FIELD=FACTOR").items()},
        records=given["records"],
        nulls=given["nulls"],
        reader=given["reader"],
        layouts=given["layouts"],
        last_wins=given["yes"],
    )


def _factor(name: str, text: str) -> Decimal:
    try:
        factor = Decimal(text)
    except InvalidOperation as error:
        raise click.UsageError(f"--scale {name}={text}: give a number, such as 1e-9") from error
    if not factor.is_finite() or factor == 0:
        raise click.UsageError(f"--scale {name}={text}: give a number other than 0")
    return factor


def _pairs(option: str, given: tuple[str, ...], form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise click.UsageError(f"{option} {text}: write {form}")
        if name in found:
            raise click.UsageError(f"{option} {name}: given twice; join columns with a plus, as in {name}=date+time")
        found[name] = value
    return found
