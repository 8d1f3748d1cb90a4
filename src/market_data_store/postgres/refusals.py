"""The dead letters of a batch: one for each refused row, or one for a message of which many rows are refused.

So the letters of a message are at most `MOST_LETTERS`, and take at most a small multiple of its size, whatever is in
it: the text of a row may be many times what it takes in an Arrow table, and each letter repeats the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from market_data_store.dead_letters import DeadLetter, size_of
from market_data_store.postgres.messages import DecodedMessage
from market_data_store.protocol import MAX_REASONS, Rejection
from market_data_store.wire.reader import MOST_REJECTS

#: The most letters of a message's rows; of more rows the message is kept, in one letter.
MOST_LETTERS = MOST_REJECTS - 1
#: The letters of a message's rows may take this many times its body, beyond so many bytes a letter. That is half of
#: what is promised (docs/dead-letters.md), as Postgres fills no page.
_MOST_SIZE = 2
_FREE_BYTES = 900
#: What a letter takes in the table and its indexes besides texts, and how often it has its task id.
_FIXED_BYTES, _IDS, _ID_BYTES = 250, 2, 255


class Refusal(NamedTuple):
    """A row that becomes a dead letter."""

    #: The index of its message in the batch.
    message: int
    letter: DeadLetter


class Chosen(NamedTuple):
    """The letters to keep for some refusals."""

    letters: list[DeadLetter]
    #: For each refusal the place of its letter in `letters`; None if it is committed already.
    places: list[int | None]
    #: The ids of letters of rows in whose place a letter of their message is kept.
    replaced: list[int]
    #: The places in `letters` of those letters, by message.
    wholes: dict[int, int]


class Refusals:
    """What becomes of a batch's refused rows; `rejected` has the number of rows that decoding rejected, by message."""

    def __init__(self, messages: Sequence[DecodedMessage], rejected: Sequence[int]) -> None:
        self._messages = messages
        self._rejected = rejected
        self.begin_again()

    def begin_again(self) -> None:
        """Forget which letters are committed: their rows are refused once more."""
        self._rejections: list[list[Rejection]] = [[] for _ in self._messages]
        #: How many letters of rows each message has, and what they take beyond `_FREE_BYTES` each.
        self._numbers = [0] * len(self._messages)
        self._sizes = [0] * len(self._messages)
        #: The ids of letters that keep a message, by message.
        self._wholes: dict[int, int | None] = {}

    @property
    def wholes(self) -> Mapping[int, int | None]:
        """The committed letters that keep a message, by the message's index in the batch."""
        return self._wholes

    def chosen(self, refusals: Sequence[Refusal]) -> Chosen:
        """Choose the letters of these refused rows."""
        chosen = Chosen([], [None] * len(refusals), [], {})
        by_message: dict[int, list[int]] = {}
        for number, refusal in enumerate(refusals):
            by_message.setdefault(refusal.message, []).append(number)
        for index, numbers in by_message.items():
            if index in self._wholes:
                continue
            letters = [refusals[number].letter for number in numbers]
            whole = self._whole(index, letters)
            for number, letter in zip(numbers, letters, strict=True):
                if whole is None or number == numbers[0]:
                    chosen.letters.append(whole or letter)
                chosen.places[number] = len(chosen.letters) - 1
            if whole is not None:
                chosen.wholes[index] = len(chosen.letters) - 1
                chosen.replaced.extend(r.letter for r in self._rejections[index] if r.letter is not None)
        return chosen

    def _whole(self, index: int, letters: Sequence[DeadLetter]) -> DeadLetter | None:
        """Return the letter that keeps the message, if these letters of rows are too many, or too large."""
        message = self._messages[index]
        if message.sent is None or (message.replays is not None and not message.replays.whole):
            return None  # a replay's letters are there already
        number = max(self._rejected[index], self._numbers[index] + len(letters))
        size = self._sizes[index] + sum(map(_size, letters))
        if number <= MOST_LETTERS and size <= _MOST_SIZE * len(message.sent.body):
            return None
        return message.refuse_whole(number, letters[0], message.sent)

    def kept(self, refusals: Sequence[Refusal], chosen: Chosen, ids: Sequence[int | None]) -> None:
        """Note that the chosen letters of these refused rows are committed under these ids."""
        self._wholes |= {index: ids[place] for index, place in chosen.wholes.items()}
        for (index, letter), place in zip(refusals, chosen.places, strict=True):
            id_ = self._wholes[index] if place is None else ids[place]
            self._rejections[index].append(Rejection(letter.position, letter.reason, id_, letter.pattern))
            if index not in self._wholes:
                self._numbers[index] += 1
                self._sizes[index] += _size(letter)
        for index in {index for index, _ in refusals} & self._wholes.keys():
            first = sorted(self._rejections[index], key=attrgetter("position"))[:MAX_REASONS]
            self._rejections[index] = [
                Rejection(each.position, each.reason, self._wholes[index], each.pattern) for each in first
            ]

    def rejections(self) -> list[list[Rejection]]:
        """Return the rejected rows by message, ordered by position; of a message that is kept only the first."""
        return [sorted(rejections, key=attrgetter("position")) for rejections in self._rejections]


def _size(letter: DeadLetter) -> int:
    texts = size_of(letter) + len(letter.reason) + len(letter.pattern) + _IDS * min(len(letter.task_id), _ID_BYTES)
    return max(texts + _FIXED_BYTES - _FREE_BYTES, 0)
