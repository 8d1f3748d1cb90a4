"""Messages, the same for a seed. Each knows what must become of it: how many rows are stored, and which letters."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from support.hostile.fields import FREE, ODD, ODD_AMQP, ODD_JSON, TASK

#: What the worker is given as MDS_MAX_MESSAGE_BYTES.
LIMIT = 1_000_000


@dataclass
class Message:
    """A message as it is sent, and what must become of it."""

    number: int
    kind: str
    headers: dict[str, Any]
    body: bytes
    properties: dict[str, Any] = field(default_factory=dict)
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"
    #: On Redis: the entry of the list, if it is not the usual one.
    entry: bytes | None = None
    #: On RabbitMQ: whether py-amqp can read the headers.
    is_readable: bool = True
    #: How many of its rows are stored.
    stored: int = 0
    #: The letters: task id, position, and how the reason begins.
    letters: list[tuple[str, int, tuple[str, ...]]] = field(default_factory=list)
    #: It is not a message, and is set aside as it was sent.
    is_set_aside: bool = False

    @property
    def symbol(self) -> str:
        """The symbol of its rows, which no other message has."""
        return f"h{self.number}"

    def refused(self, *prefixes: str) -> Message:
        """It becomes one letter, whose reason begins with one of these."""
        self.stored = 0
        self.letters = [(self.letter_id, 0, prefixes)]
        return self

    @property
    def letter_id(self) -> str:
        """The task id of its letters: a usable id of the headers, else the hash of its body."""
        given = self.headers.get("id")
        text = given if isinstance(given, str) else None if given is None else str(given)
        usable = text is not None and 0 < len(text) <= 255 and text.isprintable() and self.is_readable
        return str(text) if usable else f"sha256:{sha256(self.body).hexdigest()}"

    def __str__(self) -> str:
        """Return it for whoever looks for what is wrong."""
        sent = repr(self.entry or (self.headers, self.properties, self.content_type, self.body))
        return f"message {self.number} ({self.kind}), stored {self.stored}, letters {self.letters}: {sent[:600]}"


class Grammar:
    """Makes messages for one of the brokers."""

    def __init__(self, seed: int, kinds: Kinds, *, is_redis: bool) -> None:
        self._seed = seed
        self._odd = ODD + (ODD_JSON if is_redis else ODD_AMQP)
        self._kinds, self._weights = zip(*kinds, strict=True)
        self.number = 0
        self.chance = random.Random()  # noqa: S311  # no secret

    def message(self, number: int) -> Message:
        """Make the message of this number."""
        self.chance = random.Random(f"{self._seed}-{number}")  # noqa: S311  # no secret
        (make,) = self.chance.choices(self._kinds, self._weights)
        self.number = number
        name = make.__name__.removeprefix("_")
        made: Message = make(self)
        made.kind = f"{name}: {made.kind}" if made.kind else name
        return made

    def value(self) -> Any:
        """Any value that the broker carries in a header."""
        value = self.chance.choice(self._odd)
        return self.chance.choice(([value], {"x": value})) if self.chance.random() < 0.1 else value

    def json_value(self) -> Any:
        """Any value that a body carries."""
        return self.chance.choice(ODD + ODD_JSON)

    def row(self, place: int = 0, **changes: Any) -> dict[str, Any]:
        """A row that is stored unless it is changed."""
        row = {"provider": "hostile", "symbol": f"h{self.number}", "interval": "1m", "ts": 1_700_000_000 + 60 * place}
        return {**row, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 10.0, **changes}

    def usual(self, kind: str = "", **changes: Any) -> Message:
        """A message of protocol 2 with one row that is stored."""
        given = {"headers": {"task": TASK, "id": f"hostile-{self._seed}-{self.number}"}, "stored": 1}
        return Message(self.number, kind, **{**given, "body": body([self.row()]), **changes})

    def decorated(self, message: Message) -> Message:
        """The message with some of the fields that do no harm."""
        for name in self.chance.sample(FREE, self.chance.choice((0, 1, 2, 5))):
            message.headers.setdefault(name, self.value())
        return message


def body(rows: list[Any], *more: Any, embed: Any = None, **kwargs: Any) -> bytes:
    """The body of a call of protocol 2."""
    return dumped([["bars", rows, *more], kwargs, embed or {}])


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


#: How to make messages of a kind, and how frequent it is.
Kinds = list[tuple[Callable[[Grammar], Message], float]]
