"""Names of the client that were renamed, and go with the next minor version."""

from __future__ import annotations

import pytest
from celery import Celery

from market_data_store import StoreClient


def test_spooled_is_a_deprecated_name_of_pending_rows() -> None:
    with StoreClient(app=Celery(broker="memory://", set_as_current=False), linger_s=60.0) as client:
        assert client.pending_rows == 0
        with pytest.warns(DeprecationWarning, match=r"removed in version 0\.6; use pending_rows"):
            assert client.spooled == client.pending_rows
