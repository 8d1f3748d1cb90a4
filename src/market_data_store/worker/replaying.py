"""Finds out which messages of a batch are replays of dead letters, and which only say so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from market_data_store.dead_letters.signing import is_signed
from market_data_store.protocol import Replayed
from market_data_store.worker.envelope import Envelope
from market_data_store.worker.retrying import persistently, process_writer

logger = logging.getLogger(__name__)


def verified(envelopes: Sequence[Envelope]) -> list[Envelope]:
    """Return the envelopes with `replays` None for those that `replay` did not send; raises `DatabaseUnavailable`.

    These are written as any other message, and the letters that they name stay as they are.
    """
    said = [_read(envelope.replays) for envelope in envelopes]
    keys = persistently(lambda: process_writer().replay_keys()) if any(said) else []
    known = [
        replays if replays is not None and is_signed(replays, envelope.task_id, keys) else None
        for envelope, replays in zip(envelopes, said, strict=True)
    ]
    if unknown := sum(replays is not None for replays in said) - sum(replays is not None for replays in known):
        logger.warning(
            "%d messages name dead letters, and this database's key did not sign them: their rows are written, and the "
            "letters stay; if somebody has replayed these, do it again",
            unknown,
        )
    return [
        envelope if envelope.replays is None else envelope._replace(replays=replays)
        for envelope, replays in zip(envelopes, known, strict=True)
    ]


def _read(header: Any) -> Replayed | None:
    try:
        return msgspec.convert(header, Replayed | None)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter for half a surrogate pair
        return None
