"""What the store is set to by the environment, and the files installed with the package."""

from __future__ import annotations

from pathlib import Path

from market_data_store.config.reading import settings, settings_without_local_servers, undo_celerys_broker_option
from market_data_store.config.variables import Settings

__all__ = ["Settings", "resource", "settings", "settings_without_local_servers", "undo_celerys_broker_option"]


def resource(name: str) -> Path:
    """Path of a file that is installed with the package: in it, or at a checkout's top level (alembic.ini, ...)."""
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.exists() else package.parents[1] / name
