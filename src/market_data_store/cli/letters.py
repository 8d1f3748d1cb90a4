"""The options that say which dead letters a command means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from market_data_store.cli.choosing import DATASET
from market_data_store.dead_letters import Where, stored_id

F = TypeVar("F", bound=Callable[..., Any])


class _Moment(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time; write it as 2026-11-26 or 2026-11-26T14:30, in UTC", param, ctx)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found


@dataclass(frozen=True, slots=True)
class Chosen:
    """The letters that are meant."""

    ids: list[int] | None
    dataset: str | None
    where: Where

    @property
    def selection(self) -> dict[str, Any]:
        """The arguments of the functions of `dead_letters`."""
        return {"ids": self.ids, "dataset": self.dataset, "where": self.where}


_FILTERS = (
    click.option("--dataset", type=DATASET, help="Only letters of rows of this dataset."),
    click.option("--reason", metavar="TEXT", help="Only letters with this text in their reason."),
    click.option("--job", type=click.IntRange(1), metavar="ID", help="Only letters of this load, see `mds jobs`."),
    click.option("--task", metavar="ID", help="Only letters of the message with this task id."),
    click.option("--since", type=_Moment(), help="Only letters kept at this time or later, such as 2026-11-26T14:30."),
    click.option("--until", type=_Moment(), help="Only letters kept before this time."),
)
_BY_NAME = (
    click.option("--id", "ids", type=click.IntRange(1), multiple=True, help="This letter; may be repeated."),
    *_FILTERS,
    click.option("--all", "every", is_flag=True, help="All letters."),
)


def filtered(command: F) -> F:
    """Give a command the options that filter letters; it gets them as `chosen`."""
    return _with(command, _FILTERS, _filters)


def selected(command: F) -> F:
    """Give a command the options that select letters, of which it needs one; it gets them as `chosen`."""
    return _with(command, _BY_NAME, _selection)


def _with(command: F, options: tuple[Any, ...], chosen: Callable[[Mapping[str, Any]], Chosen]) -> F:
    names = ("ids", "dataset", "reason", "job", "task", "since", "until", "every")

    def with_chosen(**given: Any) -> Any:
        own = {name: given.pop(name) for name in names if name in given}
        return command(chosen=chosen(own), **given)

    with_chosen.__doc__, with_chosen.__name__ = command.__doc__, command.__name__
    with_chosen.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Any = with_chosen
    for option in reversed(options):
        decorated = option(decorated)
    result: F = decorated
    return result


def _filters(given: Mapping[str, Any]) -> Chosen:
    where = {name: given[name] for name in ("reason", "job", "since", "until")}
    task = None if given["task"] is None else stored_id(given["task"])
    return Chosen(None, given["dataset"], Where(**where, task=task))


def _selection(given: Mapping[str, Any]) -> Chosen:
    chosen = _filters(given)
    has_filter = chosen.dataset is not None or chosen.where != Where()
    if (bool(given["ids"]) + has_filter + given["every"]) != 1:
        raise click.UsageError(
            "select letters by exactly one of --id 17, --all, and filters such as --dataset bars (see --help)"
        )
    return Chosen(list(given["ids"]) or None, chosen.dataset, chosen.where)
