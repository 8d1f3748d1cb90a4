"""The entry point of `mds`: it minds signals before anything is imported that takes long."""

from __future__ import annotations

from importlib import import_module

from market_data_store.cli.ending import exit_at_once


def main() -> None:
    """Run `mds`."""
    exit_at_once()
    import_module("market_data_store.cli.main").main()
