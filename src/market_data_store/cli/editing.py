"""`mds dead-letters edit`: one letter in the user's editor, sent again when it has been saved."""

from __future__ import annotations

import sys

import click

from market_data_store import dead_letters
from market_data_store.cli.letters import Chosen
from market_data_store.cli.replaying import replayed, show_outcome
from market_data_store.config import settings
from market_data_store.dead_letters import EVERY, Letter
from market_data_store.dead_letters.correcting import edited, text_of
from market_data_store.errors import InvalidMessage
from market_data_store.postgres.connection import connect


@click.command("edit")
@click.argument("id", type=click.IntRange(1))
@click.option(
    "--timeout", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds to wait; 0 does not wait."
)
def command(id: int, timeout: float) -> None:  # click requires the argument's name
    """Correct the row of a letter in your editor ($VISUAL or $EDITOR), and send it again when it is saved.

    A letter is gone when its row is written. One that is refused again keeps the row as it was.

    \b
    mds dead-letters edit 17
    EDITOR="code --wait" mds dead-letters edit 17
    """
    settings().require_broker_url()
    with connect(settings().require_database_url()) as connection:
        letter = dead_letters.get(connection, id)
        if letter is None:
            raise InvalidMessage(f"id: {id} is not a dead letter; see `mds dead-letters list`")
        changed = _edited(letter)
        if changed is None:
            click.echo("nothing was changed; the letter stays")
            return
        outcome = replayed(connection, Chosen([id], None, EVERY), timeout, lambda _: changed)
    show_outcome(outcome, timeout)
    if not outcome.is_good:
        sys.exit(1)


def _edited(letter: Letter) -> Letter | None:
    """Return the letter as it was saved; None without a change. What cannot be read is shown again."""
    text = before = text_of(letter)
    if text is None or before is None:
        raise InvalidMessage(f"id: {letter.id} holds no row, but a whole message or only a reason: it cannot be edited")
    while True:
        saved = click.edit(text, extension=".json")
        if saved is None or saved == before:
            return None
        try:
            return edited(letter, saved)
        except InvalidMessage as error:
            if not sys.stdin.isatty():
                raise
            click.secho(str(error), fg="red", err=True)
            click.confirm("Edit it again?", default=True, abort=True)
            text = saved
