"""Messages whose bodies are spoilt: calls, rows, tables, what follows a task, packed ones, and those of protocol 1."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Any

import pyarrow as pa

from support.hostile.fields import BAD_CALLS, BAD_VALUES, FREE, NO_CALLS, NO_ROWS, STRICT_1, TASK, UNKNOWN
from support.hostile.grammar import LIMIT, Grammar, Kinds, Message, body, dumped

ARROW = "application/vnd.apache.arrow.stream"
_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": zlib.compress,
    "application/x-gzip": zlib.compress,
    "bzip2": bz2.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
}


def _calls(grammar: Grammar) -> Message:
    name, args, kwargs, prefix = grammar.chance.choice(BAD_CALLS)
    args = [[grammar.row()] if arg == "ROWS" else arg for arg in args]
    message = grammar.decorated(grammar.usual(name))
    message.body = dumped([args, kwargs, {"n": grammar.number}])
    return message.refused(prefix)


def _no_calls(grammar: Grammar) -> Message:
    message = grammar.decorated(grammar.usual())
    message.body = grammar.chance.choice(NO_CALLS)
    return message.refused("body:", "dataset: missing")


def _damaged(grammar: Grammar) -> Message:
    message = grammar.decorated(grammar.usual())
    message.body = message.body[: grammar.chance.randrange(len(message.body))]
    return message.refused("body:", "rows:")


def _rows(grammar: Grammar) -> Message:
    rows: list[Any] = []
    message = grammar.decorated(grammar.usual())
    message.stored = 0
    for place in range(grammar.chance.choice((1, 1, 2, 5, 20))):
        match grammar.chance.randrange(4):
            case 0:
                rows.append(grammar.row(place))
                message.stored += 1
            case 1:
                rows.append(grammar.row(place, **{f"x{grammar.chance.randrange(9)}": grammar.chance.choice(UNKNOWN)}))
                message.stored += 1
            case 2:
                name, value, prefix = grammar.chance.choice(BAD_VALUES)
                rows.append(grammar.row(place, **{name: value}))
                message.letters.append((message.letter_id, place, (prefix,)))
            case _:
                rows.append(grammar.chance.choice(NO_ROWS))
                message.letters.append((message.letter_id, place, ("row:",)))
    message.body = body(rows)
    return message


def _embedded(grammar: Grammar) -> Message:
    names = grammar.chance.sample(("callbacks", "errbacks", "chain", "chord"), grammar.chance.choice((1, 2)))
    message = grammar.usual(" ".join(names))
    message.body = body([grammar.row()], embed={name: grammar.json_value() for name in names})
    return message


def _many_bad_rows(grammar: Grammar) -> Message:
    message = grammar.usual()
    message.body = body([grammar.row(), *[1] * grammar.chance.randint(5_001, 9_000)])
    message.letters = [(message.letter_id, 0, ("rows: ",))]
    return message


def _too_large(grammar: Grammar) -> Message:
    message = grammar.usual()
    message.body = body([grammar.row(note=grammar.chance.randbytes(LIMIT * grammar.chance.randint(1, 3) // 2).hex())])
    return message.refused("body:")


def _large(grammar: Grammar) -> Message:
    """As large as a message may be; what its rows have beside their columns is not too much for a row."""
    message = grammar.usual()
    rows = [grammar.row(n, note=grammar.chance.randbytes(20_000).hex()) for n in range(grammar.chance.randint(5, 20))]
    message.stored, message.body = len(rows), body(rows)
    return message


def _refused_metadata(grammar: Grammar) -> Message:
    """More beside a row's columns than a row may have."""
    message = grammar.usual()
    message.body = body([grammar.row(note=grammar.chance.randbytes(40_000).hex()), grammar.row(1)])
    message.letters = [(message.letter_id, 0, ("metadata:", "note:", "row:"))]
    return message


def _compressed(grammar: Grammar) -> Message:
    name, pack = grammar.chance.choice([*_PACKERS.items()])
    message = grammar.decorated(grammar.usual(name))
    message.headers["compression"] = name
    message.body = pack(message.body)
    if grammar.chance.random() < 0.4:
        message.body = message.body[: grammar.chance.randrange(len(message.body) - 8)]
        return message.refused("body:")
    return message


def _bomb(grammar: Grammar) -> Message:
    name, pack = grammar.chance.choice([*_PACKERS.items()])
    message = grammar.decorated(grammar.usual(name))
    message.headers["compression"] = name
    message.body = _packed_zeros(pack)
    return message.refused("body:")


@cache
def _packed_zeros(pack: Callable[[bytes], bytes]) -> bytes:
    return pack(bytes(40 << 20))


def _table(grammar: Grammar) -> Message:
    message = grammar.decorated(grammar.usual())
    place = grammar.chance.randrange(4)
    dataset = {"dataset": "bars"} if place != 1 else {"n": str(grammar.number)}
    row = {**grammar.row(), "ts": "2024-01-01T00:00:00Z"} | ({"close": float("nan")} if place == 2 else {})
    table = pa.Table.from_pylist([row])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata(dataset)) as writer:
        writer.write_table(table)
    message.content_type, message.body = ARROW, sink.getvalue().to_pybytes()
    match place:
        case 0:
            return message
        case 1:
            return message.refused("dataset:", "body:", "table:")
        case 2:
            message.stored, message.letters = 0, [(message.letter_id, 0, ("close:",))]
            return message
        case _:
            message.body = message.body[: grammar.chance.randrange(len(message.body) * 3 // 4)]
            return message.refused("body:", "table:")


def _content(grammar: Grammar) -> Message:
    message = grammar.decorated(grammar.usual())
    message.content_encoding = grammar.chance.choice((None, "", "binary", "utf-16", "x", "application/gzip", "é"))
    message.content_type = grammar.chance.choice(
        (None, "application/json", "", "text/plain", "application/x-yaml", "x" * 200)
    )
    if message.content_type in (None, "application/json"):
        return message
    return message.refused("content_type:")


def _protocol_1(grammar: Grammar) -> Message:
    fields: dict[str, Any] = {"task": TASK, "id": f"hostile-{grammar.number}", "args": ["bars", [grammar.row()]]}
    fields |= {"kwargs": {}, "utc": True}
    chance = grammar.chance
    wrong: list[str] = []
    for name in chance.sample(
        [*STRICT_1, *FREE[:7], "utc", "callbacks", "errbacks", "chain", "chord"], chance.choice((0, 1, 2, 4))
    ):
        fields[name] = grammar.json_value()
        if name in STRICT_1 and not STRICT_1[name](fields[name]):
            wrong.append("group" if name == "taskset" else name)
    message = Message(grammar.number, "", {}, b"", stored=1)
    place = chance.randrange(6)
    if place == 0:
        fields["args"], prefix = chance.choice(
            (({}, "body:"), ("x", "body:"), ([], "dataset:"), (None, "body:"), (["bars"], "rows:"))
        )
        wrong.append(prefix.rstrip(":"))
    elif place == 1:
        fields["task"] = chance.choice(("x", 5, [], "", True))
        wrong = ["task", *wrong]
    elif place == 2:
        fields["id"] = chance.choice((None, "", 5, [], {}))
    message.body = dumped({**fields, "n": grammar.number})
    id_ = fields["id"]
    if wrong:
        prefixes = tuple(f"{name}:" for name in wrong)
        is_text = isinstance(id_, str) and bool(id_)
        # The letter of a message whose headers are refused has the id of the headers, and those are in the body.
        letter = f"sha256:{sha256(message.body).hexdigest()}"
        if set(wrong) <= {"body", "dataset", "rows"} and is_text:
            letter = id_
        message.stored, message.letters = 0, [(letter, 0, (*prefixes, "body:"))]
    return message


BODIES: Kinds = [
    *((_calls, 8), (_no_calls, 5), (_damaged, 5), (_rows, 15), (_embedded, 5), (_many_bad_rows, 0.3)),
    *((_too_large, 0.3), (_large, 0.3), (_refused_metadata, 0.5), (_compressed, 5), (_bomb, 1), (_table, 6)),
    *((_content, 4), (_protocol_1, 10)),
]
