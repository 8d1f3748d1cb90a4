"""How commands choose: a dataset by its name, rows by `--provider`, `--symbol`, `--interval`, `--start`, `--end`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

import click

from market_data_store.datasets import DATASETS
from market_data_store.errors import InvalidRead
from market_data_store.wire.bounds import moment_of

C = TypeVar("C", bound=Callable[..., Any])


class NameOf(click.ParamType):  # type: ignore[type-arg]  # of click 8.1 it takes none
    """One of some names that are looked up when they are needed: declarations take a moment to read."""

    name = "choice"

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    @property
    def _choice(self) -> Any:
        return click.Choice([*self._names()])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name; fails for another text."""
        return self._choice.convert(value, param, ctx)

    def get_metavar(self, *args: Any, **named: Any) -> str | None:
        """Return what the help shows."""
        found: str | None = self._choice.get_metavar(*args, **named)
        return found

    def shell_complete(self, *args: Any, **named: Any) -> Any:
        """Return what a shell may complete."""
        return self._choice.shell_complete(*args, **named)


#: The name of a dataset.
DATASET = NameOf(lambda: DATASETS)


class GroupOfDatasets(click.Group):
    """Takes the name of a dataset where other groups take that of a command only: for its command `list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; without the name of a command they are those of `list`."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command of this name, or `list`."""
        return super().get_command(ctx, cmd_name) or self.commands["list"]


def names(what: str) -> Callable[[C], C]:
    """Add the options that select rows by name; each may be given several times."""

    def add(command: C) -> C:
        # From the last to the first, as click lists them.
        for option, help_ in (
            ("interval", f"Only {what} of this interval, such as 1m (bars have one)."),
            ("symbol", f"Only {what} of this symbol; may be repeated, as the other two."),
            ("provider", f"Only {what} of this provider."),
        ):
            command = click.option(f"--{option}", multiple=True, metavar="NAME", help=help_)(command)
        return command

    return add


def chosen(dataset: str, **names: tuple[str, ...]) -> dict[str, Any]:
    """Return the names that were given, as criteria of `postgres.selection`; None for those that were not."""
    if names["interval"] and "interval" not in DATASETS[dataset].table.columns:
        raise click.UsageError(f"--interval {names['interval'][0]}: {dataset} have no interval; only bars do")
    return {name: list(values) or None for name, values in names.items()}


def time(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """Read the value of an option as a time."""
    try:
        return moment_of(value, "time")
    except InvalidRead as error:
        raise click.BadParameter(str(error).removeprefix("time: ")) from None
