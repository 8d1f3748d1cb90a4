"""`mds top`: the state of the store on a screen that stays up to date, or in a line an interval without a terminal."""

from __future__ import annotations

import json
import time

import click
from rich.console import Group
from rich.live import Live

from market_data_store.cli.keys import Keys, pressed_keys
from market_data_store.cli.screen import Screen, line_of
from market_data_store.cli.terminal import at_hangup, console
from market_data_store.cli.watching import OfServers, OfWeb, Seen, Source
from market_data_store.config import settings

#: Seconds until a new size of the terminal is noticed.
_RESIZED_S = 0.1
#: Keys that end it: q, Q and Ctrl-D; Escape begins what other keys send, so it must have come alone.
_END, _ESCAPE = frozenset("qQ\x04"), "\x1b"


@click.command("top")
@click.option("--url", metavar="URL", help="Watch the store of this status page, instead of asking its servers.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 3600.0),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON document of /status.json, one a line.")
def command(url: str | None, interval_s: float, as_json: bool) -> None:
    """Watch the store: lanes, rates, workers, feeds, dead letters and the last events.

    Press q, or Ctrl-C, to end. Without a terminal it prints a line an interval. It needs DATABASE_URL and BROKER_URL,
    or --url, with MDS_STATUS_TOKEN if the page wants a token.

    \b
    mds top
    mds top --url https://store.example.com
    mds top --interval 60 | tee -a store.log
    """
    at_hangup(_end)
    configured = settings()
    source: Source = OfServers(configured) if url is None else OfWeb(url, configured.status_token)
    with source:
        if as_json or not console.is_terminal or console.is_dumb_terminal:
            _print(source, interval_s, as_json=as_json)
        else:
            _show(source, interval_s)


def _end(*_: object) -> None:
    raise SystemExit(0)  # the terminal was closed


def _print(source: Source, interval_s: float, *, as_json: bool) -> None:
    while True:
        due = time.monotonic() + interval_s
        seen = source.newest()
        line = json.dumps(seen.document) if as_json else line_of(seen.document)
        click.echo(f"{line}; {seen.trouble}" if seen.trouble and not as_json else line)
        time.sleep(max(0.0, due - time.monotonic()))


def _show(source: Source, interval_s: float) -> None:
    seen = source.newest()  # what is wrong from the start is said on the normal screen
    with pressed_keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            due = time.monotonic() + interval_s
            if _draw_until(due, seen, source.name, keys, live):
                return
            seen = source.newest()


def _draw_until(due: float, seen: Seen, name: str, keys: Keys, live: Live) -> bool:
    """Show the document until the next one is due, at each size of the terminal; returns whether to end."""
    drawn = None
    while True:
        size = console.size
        if size != drawn:
            screen = Screen(size.width, size.height, ascii_only=console.options.ascii_only)
            live.update(Group(*screen.lines(seen.document, name, seen.trouble)), refresh=True)
            drawn = size
        left_s = due - time.monotonic()
        if left_s <= 0:
            return False
        pressed = keys.wait(min(left_s, _RESIZED_S))
        if pressed == _ESCAPE or not _END.isdisjoint(pressed):
            return True
