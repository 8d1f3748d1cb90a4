"""`mds release`: the step before a deployment. It checks what can stop one, then migrates."""

from __future__ import annotations

import sys
import time
from contextlib import closing

import click

from market_data_store.app import app
from market_data_store.cli.doctor import shown
from market_data_store.cli.migrate import command as migrate
from market_data_store.cli.migrate import wait_option
from market_data_store.cli.terminal import say
from market_data_store.config import settings
from market_data_store.coordinator.queue import QueueInspector, if_answered
from market_data_store.postgres.connection import wait_for_server
from market_data_store.protocol import QUEUE
from market_data_store.status.doctor.examination import Seen, examine_for_release
from market_data_store.status.doctor.finding import worst

#: Seconds between two tries to reach the broker.
_TRY_INTERVAL_S = 1.0


@click.command("release")
@wait_option
@click.pass_context
def command(context: click.Context, wait_s: float) -> None:
    """Check what can stop a deployment, then bring the database's schema up to date.

    Checks settings, packages, reachability and versions of the servers, and rights in Postgres; a line for each warning
    and error. The exit code is 1, and nothing was changed, if there is an error; 2 if a setting is wrong. Without
    BROKER_URL the broker is not checked.

    \b
    mds release
    """
    configured = settings()
    wait_for_server(configured.migration_url, wait_s, say)
    if configured.broker_url:
        _wait_for_broker(configured.rabbitmq_management_url, wait_s)
    findings = shown(examine_for_release(app, Seen()), least="warning")
    if worst(findings) == "error":
        click.secho("error: this cannot be deployed; nothing was changed", fg="red", err=True)
        sys.exit(1)
    context.invoke(migrate, down=False, status=False, yes=False, wait_s=0.0)


def _wait_for_broker(management_url: str, timeout_s: float) -> None:
    """Try to reach the broker until it answers; that it does not is a finding of its own."""
    until, is_said = time.monotonic() + timeout_s, False
    with closing(QueueInspector(app, QUEUE, management_url=management_url)) as inspector:
        while if_answered(inspector.waiting) is None and (left_s := until - time.monotonic()) > 0:
            if not is_said:
                say(f"the broker does not answer; trying for another {left_s:.0f} s")
                is_said = True
            time.sleep(min(_TRY_INTERVAL_S, left_s))
