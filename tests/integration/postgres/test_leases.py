"""A lease has one holder, by Postgres's clock."""

from __future__ import annotations

import psycopg
import pytest
from support.databases import Connection
from support.waiting import wait_until

from market_data_store.postgres.leases import Lease, LeaseLost
from market_data_store.postgres.transactions import transaction


def test_a_lease_has_one_holder_until_it_is_released_or_ends(database: Connection) -> None:
    first, second, other = Lease("l", lease_s=0.3), Lease("l"), Lease("another")
    assert (first.held(database), second.held(database), other.held(database)) == (True, False, True)
    assert first.held(database)
    with pytest.raises(LeaseLost):
        second.keep(database)
    wait_until(lambda: second.held(database), "the lease ends")
    assert not first.held(database)
    with pytest.raises(LeaseLost):
        first.keep(database)
    first.release(database)
    assert not first.held(database)
    second.release(database)
    assert first.held(database)


def test_a_lease_from_the_future_ends(database: Connection) -> None:
    first, second = Lease("l"), Lease("l")
    assert first.held(database)
    database.execute("UPDATE leases SET expires_at = now() + interval '1 day'")
    assert second.held(database)


def test_a_transaction_that_keeps_the_lease_has_it_until_its_end(database: Connection, database_url: str) -> None:
    first, second = Lease("l", lease_s=0.1), Lease("l")
    with psycopg.connect(database_url, autocommit=True) as rival:
        assert first.held(database)
        with transaction(database):
            first.keep(database)
            for _ in range(2):  # it waits for longer than the lease lasts
                assert not second.held(rival)
        wait_until(lambda: second.held(rival), "the lease ends")
