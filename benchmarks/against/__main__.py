"""The command `python -m benchmarks.against`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from benchmarks.against.comparison import BROKERS, PARTS, Options, Results, measure
from benchmarks.against.tables import markdown
from market_data_store.errors import MarketDataStoreError

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def main() -> None:
    """Run it; an error of ours is one line and exit code 2."""
    try:
        command()
    except MarketDataStoreError as error:
        errors.print(f"error: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(2)


def _chosen(_context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    known = PARTS if parameter.name == "parts" else BROKERS
    given = [name.strip() for name in value.split(",")]
    if unknown := [name for name in given if name not in known]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(known)}")
    return tuple(name for name in known if name in given)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("commit")
@click.option(
    "--only",
    "parts",
    callback=_chosen,
    default=",".join(PARTS),
    show_default=True,
    metavar="PARTS",
    help="What to measure.",
)
@click.option(
    "--brokers",
    callback=_chosen,
    default=",".join(BROKERS),
    show_default=True,
    metavar="NAMES",
    help="On which brokers drains are measured.",
)
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="Of drains; medians count.")
@click.option("--launches", type=click.IntRange(1), default=11, show_default=True, help="Starts of each process.")
@click.option("--rows", type=click.IntRange(5_000), default=300_000, show_default=True, help="Of a drain.")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write verdicts and samples there."
)
@click.option(
    "--scratch",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("benchmarks/out"),
    show_default=True,
    help="Where the data of the servers is while it runs.",
)
def command(
    commit: str,
    parts: tuple[str, ...],
    brokers: tuple[str, ...],
    rounds: int,
    launches: int,
    rows: int,
    file: Path | None,
    scratch: Path,
) -> None:
    """Measure the working tree against the version at COMMIT, side by side.

    Each is installed into its own environment. They take turns, round by round, on the same servers. The working tree
    takes part twice: by how much it differs from itself is chance.

    \b
    A line holds when
      - the rate of a drain is not below the other version's by more than 5 %, or by more than two runs
        of the working tree differ, whichever is larger;
      - the import of StoreClient takes at most 0.75 of the CPU time and 0.85 of the memory;
      - `mds --help` takes at most 0.41 of the CPU time.

    \b
    Parts:
      new       drain of new rows, 500 a message
      single    drain of new rows, 1 a message (a twentieth of --rows)
      replayed  drain of rows that are stored already, 500 a message
      tables    drain of Arrow tables of 5,000 rows (three times --rows)
      import    from market_data_store import StoreClient: CPU and peak memory
      help      mds --help: CPU

    \b
    Examples:
      python -m benchmarks.against e122a62
      python -m benchmarks.against e122a62 --only import,help
      python -m benchmarks.against HEAD~3 --only new,single --brokers redis --rounds 11
      python -m benchmarks.against e122a62 --rounds 1 --rows 20000 --json against.json

    Exit code: 0 when every line holds, 1 when one misses or was not measured, 2 when nothing could be measured.
    """
    results = Results(Options(commit=commit, parts=parts, brokers=brokers, rows=rows, rounds=rounds, launches=launches))
    say = partial(console.print, soft_wrap=True, markup=False)
    for directory in (scratch, *([file.parent] if file else [])):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        measure(results, scratch, say)
    finally:
        if file is not None and results.samples:
            file.write_bytes(results.to_json())
    say(markdown(results.about, results.found, commit, results.not_measured))
    sys.exit(0 if results.holds else 1)


if __name__ == "__main__":
    main()
