"""Checks of the database URL that migrates: ADMIN_DATABASE_URL, or DATABASE_URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from market_data_store.config import Settings
from market_data_store.connections.urls import without_password
from market_data_store.postgres.grants import what_stops_migrations
from market_data_store.postgres.schema import revisions_of
from market_data_store.postgres.server import ServerFacts
from market_data_store.status.doctor.family import Family
from market_data_store.status.doctor.finding import Finding, error, ok, skipped, warning
from market_data_store.status.doctor.postgres import Database, opened

NAME = "admin"


def admin(settings: Settings, see: Callable[[ServerFacts], None], *, is_release: bool) -> Family[Database]:
    """Return the checks; `see` gets the facts, for checks that need those of several servers.

    A release needs the right to migrate; elsewhere a role of few rights is as it should be.
    """
    variable = "ADMIN_DATABASE_URL" if settings.admin_database_url else "DATABASE_URL"
    must_migrate = is_release or bool(settings.admin_database_url)

    def reachable(part: Database) -> Iterator[Finding]:
        see(part.facts)
        yield ok(f"{NAME}.reachable", f"{without_password(part.url)} answers to the role {part.facts.role}")

    def rights(part: Database) -> Iterator[Finding]:
        check, stopped = f"{NAME}.rights", what_stops_migrations(part.connection)
        if stopped is None:
            yield ok(check, f"{part.facts.role} may migrate")
        elif must_migrate and (not is_release or not revisions_of(part.connection).up_to_date):
            yield error(
                check,
                f"{variable}: the role {part.facts.role} {stopped}, and cannot migrate",
                "use the role that owns the tables (docs/least-rights.md)",
            )
        else:
            yield ok(check, f"{part.facts.role} {stopped}, so it cannot migrate; releases need ADMIN_DATABASE_URL")

    def session(part: Database) -> Iterator[Finding]:
        if part.is_pooled:
            yield warning(
                f"{NAME}.session",
                f"{variable} goes through a pooler; migrations need a session",
                "set ADMIN_DATABASE_URL to the direct URL of the server",
            )
        else:
            yield ok(f"{NAME}.session", "migrations have a session of their own")

    return Family(
        NAME,
        lambda: opened(settings.migration_url),
        f"check {variable}, and that the server lets this machine in",
        {"reachable": reachable, "session": session, "rights": rights},
    )


def same(own: ServerFacts | None, other: ServerFacts | None) -> Iterator[Finding]:
    """Compare the database that is migrated with the one that rows are written to."""
    check = f"{NAME}.same"
    if own is None or other is None:
        yield skipped(check, "one of DATABASE_URL and ADMIN_DATABASE_URL has not answered")
    elif (own.database, own.started_at) != (other.database, other.started_at):
        yield error(
            check,
            f"ADMIN_DATABASE_URL names the database {own.database}, and DATABASE_URL another: {other.database}",
            "let both name the same database of the same server",
        )
    else:
        yield ok(check, "it is the database that rows are written to")
