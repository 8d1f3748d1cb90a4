"""Signs replays, so that a message changes only the letters that it was made of.

A replay names letters in a header. Anybody who can send a message can write such a header, but only `replay` can sign
it: the key is in the database, where producers have no access. Every key in the table is valid, so an operator can
insert another one, and delete the first when no replay is on its way.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from secrets import token_hex
from typing import Any

import msgspec
import psycopg

from market_data_store.protocol import Replayed

_KEYS = "SELECT key FROM replay_keys ORDER BY key"
#: Two that do it at once make two keys.
_MAKE = "INSERT INTO replay_keys (key) SELECT %s WHERE NOT EXISTS (SELECT FROM replay_keys)"
_KEY_BYTES = 32


def keys(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the keys by which replays are known."""
    return [key for (key,) in connection.execute(_KEYS)]


def key(connection: psycopg.Connection[Any]) -> str:
    """Return a key to sign with; the first replay makes it."""
    found = keys(connection)
    if not found:
        connection.execute(_MAKE, [token_hex(_KEY_BYTES)])
        found = keys(connection)
    return found[0]


def signed(replayed: Replayed, message_id: str, key: str) -> Replayed:
    """Return what the header of the message with this task id holds."""
    return msgspec.structs.replace(replayed, signature=_signature(replayed, message_id, key))


def is_signed(replayed: Replayed, message_id: str, keys: Iterable[str]) -> bool:
    """Return whether a `replay` that knows one of the keys made the header for the message with this task id."""
    given = replayed.signature.encode("utf-8", "surrogatepass")
    return any(hmac.compare_digest(given, _signature(replayed, message_id, key).encode()) for key in keys)


def _signature(replayed: Replayed, message_id: str, key: str) -> str:
    said = msgspec.json.encode([ascii(message_id), ascii(replayed.task_id), replayed.ids, replayed.whole])
    return hmac.new(key.encode(), said, sha256).hexdigest()
