"""Traces of rows from `StoreClient.write` to the commit, by OpenTelemetry; off unless its variables ask for them.

`switch` decides, and only then imports the others: `spans` makes the spans, `exporting` takes them to the collector.
"""
