# %% [markdown]
# # Look at what is stored
#
# A notebook as a script: editors that know `# %%` run it cell by cell, and Python runs it from start to end.
# DATABASE_URL is the database of the store; `mds up` prints it.

# ruff: noqa: T201, D100  # a script prints

# %%
import os
from datetime import datetime, timedelta
from itertools import groupby

from market_data_store import reads

connection = reads.connect(os.environ["DATABASE_URL"])

# %% [markdown]
# ## A week of minute bars
#
# The bars of the README's `mds load`. Times without a zone are UTC.

# %%
start = datetime(2024, 1, 2)  # without a zone: UTC
bars = reads.bars(connection, "6EH4", "1m", start, start + timedelta(days=4), provider="CME")
print(f"{len(bars)} bars from {bars[0]['ts']:%Y-%m-%d %H:%M} to {bars[-1]['ts']:%Y-%m-%d %H:%M}")

# %% [markdown]
# ## The same as daily bars

# %%
for day, group in groupby(bars, key=lambda bar: bar["ts"].date()):
    minutes = list(group)
    high, low = max(bar["high"] for bar in minutes), min(bar["low"] for bar in minutes)
    volume = sum(bar["volume"] for bar in minutes)
    print(f"{day}  {minutes[0]['open']:.5f}  {high:.5f}  {low:.5f}  {minutes[-1]['close']:.5f}  {volume:,.0f}")

# %% [markdown]
# ## The latest prices

# %%
for tick in reads.latest_prices(connection, ["BTC-USD", "ETH-USD"]):
    print(f"{tick['symbol']} {tick['price']} at {tick['ts']:%H:%M:%S} from {tick['provider']}")

# %%
connection.close()
