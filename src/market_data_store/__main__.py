"""`python -m market_data_store`: the command `mds`."""

from market_data_store.cli.entry import main

main()
