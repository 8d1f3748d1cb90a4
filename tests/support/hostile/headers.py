"""Messages of protocol 2 whose headers are spoilt, one or several."""

from __future__ import annotations

from typing import Any

from support.hostile.fields import ODD, STRICT, TASK
from support.hostile.grammar import Grammar, Kinds, Message, body


def _free_headers(grammar: Grammar) -> Message:
    return grammar.decorated(grammar.decorated(grammar.usual()))


def _strict_headers(grammar: Grammar) -> Message:
    names = grammar.chance.sample([*STRICT], grammar.chance.choice((1, 1, 2, 3)))
    values = {name: grammar.value() for name in names}
    message = grammar.decorated(grammar.usual(" ".join(names)))
    message.headers.update(values)
    wrong = [name for name, value in values.items() if not STRICT[name](value)]
    if wrong == ["compression"] and isinstance(values["compression"], str) and len(values["compression"]) <= 255:
        return message.refused("body:")
    return message.refused(*(f"{name}:" for name in wrong), "body:") if wrong else message


def _task(grammar: Grammar) -> Message:
    value = grammar.chance.choice([value for value in ODD if value != ""] + [f"{TASK} ", TASK.upper(), "celery.map"])
    message = grammar.decorated(grammar.usual())
    message.headers["task"] = value
    return message.refused("task:")


def _no_task(grammar: Grammar) -> Message:
    message = grammar.usual()
    del message.headers["task"]
    return grammar.decorated(message).refused("headers: the message is not a Celery task")


def _id(grammar: Grammar) -> Message:
    n = grammar.number
    odd: list[Any] = [
        None,
        "",
        n,
        [n],
        {"n": n},
        n + 0.5,
        True,
        "x" * 300 + str(n),
        f"{n}\n",
        f"\x1b[2J{n}",
        f"\x00{n}",
    ]
    message = grammar.decorated(grammar.usual())
    message.headers["id"] = grammar.chance.choice(odd)
    if grammar.chance.random() < 0.1:
        del message.headers["id"]
    if message.headers.get("id") is True:
        message.headers["id"] = [True, n]
    return message.refused("id:")


def _odd_ids_that_are_usable(grammar: Grammar) -> Message:
    n = grammar.number
    message = grammar.decorated(grammar.usual())
    message.headers["id"] = grammar.chance.choice([f"{n}é", f"{n:0>255}", f"{n}'; --", f"%s{n}", f"[bold]{n}[/x]"])
    return message


def _equal_ids(grammar: Grammar) -> Message:
    message = grammar.decorated(grammar.usual())
    message.headers["id"] = f"equal-{grammar.chance.randrange(5)}"
    if grammar.chance.random() < 0.5:
        message.body = body([grammar.row(close="x")])
        message.stored, message.letters = 0, [(message.headers["id"], 0, ("close:",))]
    return message


HEADERS: Kinds = [
    *((_free_headers, 10), (_strict_headers, 20), (_task, 5), (_no_task, 3), (_id, 5)),
    *((_odd_ids_that_are_usable, 3), (_equal_ids, 3)),
]
