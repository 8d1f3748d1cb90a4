"""Decoded messages: rows as they were sent, with what counts and dead letters need of their message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from market_data_store.datasets import Dataset
from market_data_store.dead_letters import DeadLetter
from market_data_store.errors import Reason
from market_data_store.protocol import Replayed
from market_data_store.wire.columns import DecodedRows, decode
from market_data_store.wire.rows import SentRows


class Sent(NamedTuple):
    """A message as it was sent, for a letter that keeps all of it."""

    body: bytes
    content_type: str | None
    content_encoding: str | None
    compression: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedMessage:
    """A message's rows as they were sent, with what counts and dead letters need of the message."""

    task_id: str
    dataset: Dataset
    rows: SentRows
    #: When the message was first enqueued, in microseconds since 2000-01-01 UTC.
    enqueued_at: int
    defaults: dict[str, Any] = field(default_factory=dict)
    #: The letters that the message replays.
    replays: Replayed | None = None
    #: None if that is not known; then each rejected row has a letter, however many they are.
    sent: Sent | None = None

    def refuse(self, position: int, reason: Reason, row: str, sqlstate: str | None = None) -> DeadLetter:
        """Make the dead letter of a row of this message."""
        id_ = self.letter(position)
        return DeadLetter(
            task_id=self.task_id if self.replays is None or id_ is None else self.replays.task_id,
            position=position,
            dataset=self.dataset.name,
            reason=reason.text,
            pattern=reason.pattern,
            sqlstate=sqlstate,
            row=row,
            defaults=self.defaults,
            enqueued_at=self.enqueued_at,
            id=id_,
        )

    def refuse_whole(self, number: int, first: DeadLetter, sent: Sent) -> DeadLetter:
        """Make the dead letter that keeps the message in place of at least so many letters; `first` is one of them."""
        reason = Reason.of(
            "rows: {} or more of {} are rejected, too many for a letter each; this letter keeps their message",
            *(f"{count:,}" for count in (number, len(self.rows))),
        )
        whole = self.replays if self.replays is not None and self.replays.whole else None
        return DeadLetter(
            task_id=self.task_id if whole is None else whole.task_id,
            position=0,
            dataset=self.dataset.name,
            reason=f"{reason.text}; row {first.position}: {first.reason}",
            pattern=f"{reason.pattern}; {first.pattern}",
            body=sent.body,
            content_type=sent.content_type,
            content_encoding=sent.content_encoding,
            compression=sent.compression,
            enqueued_at=self.enqueued_at,
            id=None if whole is None else whole.ids[0],
        )

    def letter(self, position: int) -> int | None:
        """Return the id of the letter that this row was replayed from, if any."""
        return None if self.replays is None or self.replays.whole else self.replays.ids[position]


def decoded(dataset: Dataset, messages: Sequence[DecodedMessage]) -> DecodedRows:
    """Type and check the rows of these messages."""
    return decode(dataset, [message.rows for message in messages], [message.enqueued_at for message in messages])
