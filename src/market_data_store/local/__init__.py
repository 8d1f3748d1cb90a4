"""The store on one machine: embedded servers, and the processes of `mds up`."""

from market_data_store.local.directory import EmbeddedServer
from market_data_store.local.host import end_with_parent, free_port
from market_data_store.local.servers import start_postgres, start_valkey

__all__ = ["EmbeddedServer", "end_with_parent", "free_port", "start_postgres", "start_valkey"]
