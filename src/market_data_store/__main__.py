"""`python -m market_data_store`: the command `mds`."""

from market_data_store.cli import main

main()
