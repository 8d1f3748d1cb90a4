"""What only one of the brokers can hold: entries of a Redis list that no kombu has written, and properties of AMQP."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from support.hostile.fields import ODD, ODD_JSON, TASK
from support.hostile.grammar import Grammar, Kinds, Message, body, dumped

#: What says where a message was sent. The store does not believe it.
ORIGINS: tuple[Any, ...] = (
    *(
        {"exchange": "", "routing_key": TASK},
        {},
        {"exchange": "celery", "routing_key": "celery"},
        {"routing_key": None},
    ),
    *({"exchange": {"a": 1}, "routing_key": TASK}, {"exchange": 5, "routing_key": 5}, {"redelivered": [1]}, {"x": [1]}),
)


def entry(message: Message, **changes: Any) -> bytes:
    """The entry of a Redis list, as kombu writes it or changed; a change to `...` leaves the name out."""
    properties = {
        "delivery_tag": f"tag-{message.number}",
        "delivery_info": {"exchange": "", "routing_key": TASK},
        "body_encoding": "base64",
        **message.properties,
    }
    usual = {
        "body": b64encode(message.body).decode(),
        "content-encoding": message.content_encoding,
        "content-type": message.content_type,
        "headers": message.headers,
        "properties": properties,
    }
    return json.dumps({name: value for name, value in (usual | changes).items() if value is not ...}).encode()


# --- Redis -----------------------------------------------------------------------------------------------------------


def _properties(grammar: Grammar) -> Message:
    message = grammar.decorated(grammar.usual())
    names = ("priority", "delivery_mode", "reply_to", "correlation_id", "delivery_info", "taken_at", "x")
    for name in grammar.chance.sample(names, 3):
        message.properties[name] = grammar.value()
    message.properties["delivery_info"] = grammar.chance.choice(ORIGINS)
    if grammar.chance.random() < 0.5:
        message.properties["delivery_tag"] = grammar.chance.choice(("same", "", "é", "x" * 1_000, "\x00", "\ud800"))
    return message


def _redelivered(grammar: Grammar) -> Message:
    """It says that somebody had it before, so it has its turn alone."""
    message = grammar.decorated(grammar.usual())
    message.properties["delivery_info"] = {"exchange": "", "routing_key": TASK, "redelivered": True}
    message.headers["turns"] = grammar.value()
    return message


def _plain_body(grammar: Grammar) -> Message:
    message = grammar.usual()
    message.properties["body_encoding"] = grammar.chance.choice((None, "utf-8", 5, [], {}, "rot13", ""))
    message.entry = entry(message, body=message.body.decode())
    return message


def _body_that_is_json(grammar: Grammar) -> Message:
    """Not a text that holds JSON: the arguments themselves."""
    message = grammar.usual()
    message.entry = entry(message, body=json.loads(message.body))
    return message


def _body_of_any_type(grammar: Grammar) -> Message:
    message = grammar.usual()
    n = grammar.number
    values: tuple[Any, ...] = ({"a": n}, [n], 1.5, 400_000_000, True, None, "", "\ud800", [[]], ...)
    message.entry = entry(message, body=grammar.chance.choice(values))
    return message.refused("body:", "dataset:")


def _headers_of_any_type(grammar: Grammar) -> Message:
    message = grammar.usual()
    value = grammar.chance.choice([value for value in (*ODD, *ODD_JSON) if not isinstance(value, dict)])
    message.headers = {}
    message.entry = entry(message, headers=value if grammar.chance.random() < 0.8 else ...)
    return message.refused("headers: the message is not a Celery task")


def _fields_left_out(grammar: Grammar) -> Message:
    message = grammar.usual()
    names = grammar.chance.sample(("content-type", "content-encoding"), grammar.chance.choice((1, 2)))
    message.entry = entry(message, **dict.fromkeys(names, ...))
    return message


def _taken_at(grammar: Grammar) -> Message:
    """The worker's own note in the record, written by somebody else."""
    message = grammar.usual()
    message.entry = entry(message, taken_at=grammar.value())
    return message


def _no_message(grammar: Grammar) -> Message:
    n, chance = grammar.number, grammar.chance
    message = grammar.usual()
    good = {"delivery_tag": f"tag-{n}", "delivery_info": {}}
    message.entry = chance.choice((
        f"garbage {n}".encode(), b"\xff%d" % n, f"[{n}]".encode(), f'"{n}"'.encode(), str(n).encode(),
        dumped({"n": n}), dumped({"n": n, "properties": chance.choice((1, "x", None, [], {}))}),
        dumped({"n": n, "properties": {**good, "delivery_tag": chance.choice((1, None, [], {}, True))}}),
        dumped({"n": n, "properties": {**good, "delivery_info": chance.choice((1, "x", None, True, [], [1]))}}),
        entry(message)[:-1], entry(message, headers={"x": json.loads("[" * 900 + "]" * 900), "n": n})[:-9],
        b"{" + entry(message), f"nul\x00 {n}".encode(), b"[" * 3_000 + str(n).encode(), bytes(10_000) + str(n).encode(),
    ))  # fmt: skip
    message.stored, message.is_set_aside = 0, True
    return message


# --- RabbitMQ --------------------------------------------------------------------------------------------------------


def _amqp_properties(grammar: Grammar) -> Message:
    message = grammar.decorated(grammar.usual())
    texts = ("", "x", "é" * 100, "\x00", "amq.rabbitmq.reply-to", "x\ny\x1b[2J", "../..")
    for name in grammar.chance.sample(("reply_to", "correlation_id", "message_id", "type", "app_id", "cluster_id"), 3):
        message.properties[name] = grammar.chance.choice(texts)
    if message.properties.get("reply_to") == "amq.rabbitmq.reply-to":
        del message.properties["reply_to"]  # the broker refuses it from who does not listen
    message.properties |= {
        "priority": grammar.chance.choice((0, 9, 255)),
        "delivery_mode": grammar.chance.choice((1, 2)),
    }
    return message


def _headers_nobody_can_read(grammar: Grammar) -> Message:
    """With a time in the year 584554051223: all that is left is the body."""
    message = grammar.usual()
    message.is_readable = False
    return message.refused("headers: the message is not a Celery task")


def _no_properties(grammar: Grammar) -> Message:
    message = grammar.usual()
    message.headers, message.content_type, message.content_encoding = {}, None, None
    if grammar.chance.random() < 0.5:
        message.body = dumped({"task": TASK, "args": ["bars", [grammar.row()]], "kwargs": {}})
        return message
    message.body = body([grammar.row()])
    return message.refused("headers: the message is not a Celery task")


REDIS: Kinds = [
    *((_properties, 10), (_redelivered, 1), (_plain_body, 3), (_body_that_is_json, 3), (_body_of_any_type, 4)),
    *((_headers_of_any_type, 3), (_fields_left_out, 2), (_taken_at, 3), (_no_message, 8)),
]
RABBITMQ: Kinds = [(_amqp_properties, 10), (_headers_nobody_can_read, 3), (_no_properties, 3)]
