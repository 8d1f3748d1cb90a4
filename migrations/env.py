"""Runs the migrations with the URL of the settings, each in its own transaction, and all under one lock."""

import psycopg
from alembic import context
from sqlalchemy import create_engine, pool, text

from market_data_store.config import settings
from market_data_store.postgres.tables import ADVISORY_LOCK, metadata


def run() -> None:
    given = context.config.attributes.get("url") or settings().migration_url
    # psycopg parses the URL: SQLAlchemy does not know everything that libpq knows (several hosts, for example).
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(given), poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.commit()
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
