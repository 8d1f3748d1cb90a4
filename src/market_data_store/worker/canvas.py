"""What a message says is to follow it: bounded, and only tasks.

A task that follows is a message that a worker sends. Celery makes one of each character of a text, and of each element
of a chunk, so a small message could become a flood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from market_data_store.errors import InvalidMessage, Reason

#: The names of what follows a task, in the third part of its body.
FOLLOWERS = ("callbacks", "errbacks", "chain", "chord")
#: The most tasks that may follow a message, those within others counted.
MOST_TASKS = 100


def followers_in(embed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what follows a message, by its name; raises `InvalidMessage` if it is too much."""
    found = {name: value for name in FOLLOWERS if (value := embed.get(name))}
    if sum("task" in part for part in _objects(found)) > MOST_TASKS:
        template = "body: more than {most} tasks follow the message (callbacks, errbacks, chain, chord)"
        raise InvalidMessage(Reason.of(template, most=MOST_TASKS))
    return found


def are_tasks(name: str, value: Any) -> bool:
    """Return whether what has this name can be sent: tasks, chains, groups and chords as Celery writes them."""
    tasks = [value] if name == "chord" else value
    return (
        isinstance(tasks, list)
        and all(isinstance(task, dict) and isinstance(task.get("task"), str) for task in tasks)
        and not any(part.get("subtask_type") == "chunks" for part in _objects(tasks))
    )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a value, at any depth."""
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            yield part
            rest.extend(part.values())
        elif isinstance(part, list):
            rest.extend(part)
