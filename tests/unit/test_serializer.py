"""The serializer of messages and events: JSON to everyone."""

from __future__ import annotations

import json

import pytest
from kombu.serialization import dumps, loads

import market_data_store.app  # noqa: F401  # which registers the serializer
from market_data_store.protocol import SERIALIZER


@pytest.mark.parametrize("value", [{"id": "a", "n": [1, 2.5, None]}, [{"id": "half a pair: \udcff"}]])
def test_the_serializer_accepts_every_python_text(value: object) -> None:
    content_type, encoding, text = dumps(value, serializer=SERIALIZER)
    assert (content_type, encoding) == ("application/json", "utf-8")
    assert json.loads(text) == value
    assert loads(text, content_type, encoding) == value
