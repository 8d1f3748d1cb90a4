"""Imports a module first, then asks what the pipeline has found of the store: imports.py MODULE."""

import json
import sys
from importlib import import_module

import_module(sys.argv[1])
#: Whose configuration is read when it is imported: `mds up` first says where its servers are.
early = "market_data_store.app" in sys.modules

from market_data_pipeline.sink import store_sink_provider  # noqa: E402

print(json.dumps({"found": store_sink_provider.AsyncStoreClient is not None, "early": early}))
