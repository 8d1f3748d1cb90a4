"""Leases in Postgres: what only one process may do at a time, whether there is a Redis or not.

A lease is a row of the table `leases`: a holder, and when the lease ends by Postgres's clock. When the holder dies,
another one takes over after at most `LEASE_S`. A transaction that begins with `keep` holds the row until its end, so
nobody else takes the lease while it runs, however long that takes.
"""

from __future__ import annotations

import os
import socket
from secrets import token_hex
from typing import Any

import psycopg

from market_data_store.errors import MarketDataStoreError
from market_data_store.postgres.transactions import LOCK_WAIT_AGAIN_S, begin, ended

#: Seconds after which a lease that is not renewed ends.
LEASE_S = 15.0

#: A lease that ends later than any of us lets it was taken by a clock that has been put back since.
_TAKE = """
    INSERT INTO leases AS lease (name, holder, expires_at)
    VALUES (%(name)s, %(holder)s, clock_timestamp() + %(lease)s * interval '1 second')
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
    WHERE lease.holder = excluded.holder OR lease.expires_at < clock_timestamp()
       OR lease.expires_at > clock_timestamp() + %(longest)s * interval '1 second'
"""
_KEEP = """
    UPDATE leases SET expires_at = clock_timestamp() + %(lease)s * interval '1 second'
    WHERE name = %(name)s AND holder = %(holder)s
"""
_RELEASE = "DELETE FROM leases WHERE name = %(name)s AND holder = %(holder)s"


class LeaseLost(MarketDataStoreError):
    """Another process has the lease now: what is under way ends."""


class Lease:
    """One process's claim to a lease, over connections of the caller's."""

    def __init__(self, name: str, *, lease_s: float = LEASE_S) -> None:
        #: Host and number of this process, and a token: two processes of one number are two holders.
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
        self._parameters = {"name": name, "holder": self.holder, "lease": lease_s, "longest": 2 * LEASE_S}

    def held(self, connection: psycopg.Connection[Any]) -> bool:
        """Take the lease or renew it; return whether this process holds it now. Raises psycopg's errors."""
        try:
            with ended(connection):
                connection.execute(begin(LOCK_WAIT_AGAIN_S))
                return connection.execute(_TAKE, self._parameters).rowcount == 1
        except psycopg.errors.LockNotAvailable:  # a transaction of the holder's is under way
            return False

    def keep(self, connection: psycopg.Connection[Any]) -> None:
        """Renew the lease in the open transaction, which then has it until its end; raises `LeaseLost`."""
        if connection.execute(_KEEP, self._parameters).rowcount != 1:
            raise LeaseLost(f"{self._parameters['name']}: another process has the lease now")

    def release(self, connection: psycopg.Connection[Any]) -> None:
        """Let another process take the lease at once."""
        connection.execute(_RELEASE, self._parameters)
