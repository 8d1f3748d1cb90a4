"""The command `python -m benchmarks`."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.benchmark import PARTS, Benchmark, Options
from benchmarks.plan import PER_MESSAGE
from benchmarks.report import write
from benchmarks.servers import servers
from benchmarks.tables import markdown
from market_data_store.cli.terminal import progress
from market_data_store.errors import MarketDataStoreError

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def main() -> None:
    """Run the command; print a `MarketDataStoreError` as one line, and exit with 1."""
    try:
        command()
    except MarketDataStoreError as error:
        errors.print(f"error: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(1)


def _parts(_context: click.Context, _parameter: click.Parameter, value: str) -> frozenset[str]:
    parts = frozenset(part.strip() for part in value.split(","))
    if unknown := parts.difference(PARTS):
        raise click.BadParameter(f"{min(unknown)!r} is not one of {', '.join(PARTS)}")
    return parts


def _counts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(count) for count in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers, such as 1,500") from None


def _sizes(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(round(float(millions) * 1e6) for millions in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers, such as 1,10,50") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--only",
    "parts",
    callback=_parts,
    default=",".join(part for part in PARTS if part != "growth"),
    show_default=True,
    metavar="PARTS",
    help="Parts to measure; growth takes longer than all others.",
)
@click.option(
    "--rows", type=click.IntRange(5_000), default=200_000, show_default=True, help="Rows of a fast contender."
)
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Rounds; the median counts.")
@click.option(
    "--per-message",
    callback=_counts,
    default=",".join(map(str, PER_MESSAGE)),
    show_default=True,
    metavar="ROWS",
    help="Rows per message of the drains.",
)
@click.option("--quick", is_flag=True, help="A tenth of the rows and one round, as a smoke test.")
@click.option("--database-url", default="", help="Postgres; a database is created there, and dropped at the end.")
@click.option("--redis-url", default="", help="An empty Redis database.")
@click.option("--rabbitmq-url", default="", help="An empty RabbitMQ virtual host.")
@click.option("--memory-rows", type=click.IntRange(20_000), default=2_000_000, show_default=True)
@click.option(
    "--growth-millions",
    "sizes",
    callback=_sizes,
    default="1,10,50",
    show_default=True,
    help="Millions of rows that the table already holds.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("benchmarks/out"),
    show_default=True,
    help="Directory of the results, and of the embedded servers' data while the benchmark runs.",
)
def command(
    parts: frozenset[str],
    rows: int,
    repeat: int,
    per_message: tuple[int, ...],
    quick: bool,
    database_url: str,
    redis_url: str,
    rabbitmq_url: str,
    memory_rows: int,
    sizes: tuple[int, ...],
    out: Path,
) -> None:
    """Compare the store with a bare COPY, plain Celery, celery-batches and the predecessor, side by side.

    Servers are embedded unless URLs are given; without an installed RabbitMQ its parts are skipped.

    \b
    python -m benchmarks --quick
    python -m benchmarks --only drain,peers --repeat 5
    python -m benchmarks --only growth --growth-millions 1,10,50
    python -m benchmarks --database-url postgresql://me@db/postgres --redis-url redis://cache/9
    """
    options = Options(
        parts=parts,
        rows=rows // 10 if quick else rows,
        repeat=1 if quick else repeat,
        per_message=per_message,
        latency_s=3 if quick else 10,
        memory_rows=memory_rows // 10 if quick else memory_rows,
        sizes=sizes,
    )
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # Not in /tmp, which may be in memory instead of on a disk.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=out.resolve(), prefix="servers-")))
        show = stack.enter_context(progress(console))
        show(0, 1, "starting servers")
        found = stack.enter_context(
            servers(scratch, database_url=database_url, redis_url=redis_url, rabbitmq_url=rabbitmq_url)
        )
        benchmark = Benchmark(found, scratch, options, show)
        try:
            benchmark.run()
        finally:
            files = write(benchmark.results, out)
    console.print(Markdown(markdown(benchmark.results)))
    console.print(f"{out}: {', '.join(files)}")


if __name__ == "__main__":
    main()
