"""What a process calls its connections at the servers, and what it says when a server takes no more of them.

Hosted plans limit the number of connections. docs/deploy.md says how many each process opens.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

#: The processes that neither send nor take messages of the store.
_LOOKING = ("mds-web", "mds-monitor", "mds-status", "mds-top", "mds-doctor", "mds-release", "mds-flower")
#: What to do about it.
_REMEDY = "close other clients or raise the limit (docs/deploy.md says what each process opens)"
#: RabbitMQ's code for a connection that it does not allow.
_NOT_ALLOWED = 530
_TOO_MANY_CONNECTIONS = "53300"


def process_name() -> str:
    """What this process calls itself at the servers: `mds-worker`, `mds-web`, ...; a producer is `mds-client`."""
    program, words = Path(sys.argv[0]), [word for word in sys.argv[1:] if not word.startswith("-")]
    if program.name == "gunicorn" or program.parent.name == "gunicorn":
        return "mds-web"
    if program.name == "celery" or program.parent.name == "celery":
        return next((f"mds-{word}" for word in words if word in ("worker", "flower")), "mds-celery")
    if program.parts[-2:] == ("cli", "flower.py"):
        return "mds-flower"
    if program.name == "mds" or program.parent.name == "market_data_store":
        return f"mds-{words[0]}" if words and words[0].replace("-", "").isalpha() else "mds"
    return "mds-client"


def shared_connections() -> int:
    """The most connections to a Redis that the threads of this process share; a thread that needs another waits.

    Where messages are sent or acknowledged, a large one must not keep other threads from asking.
    """
    return 1 if process_name() in _LOOKING else 2


def refused_for_number(error: BaseException) -> str | None:
    """Return in one line that a server takes no more connections; None if that is not the cause of the error."""
    for cause in causes(error):
        limit = _exceeded(cause)
        if limit is not None:
            return f"{limit}; {_REMEDY}"
    return None


def _exceeded(error: BaseException) -> str | None:
    # By the text where there is nothing else: Redis has no code for it, and libpq hides the SQLSTATE of a connection
    # that was refused.
    origin, text = type(error).__module__.partition(".")[0], str(error)
    if origin == "redis" and "max number of clients" in text:
        return "Redis takes no more connections (maxclients)"
    if origin == "amqp" and getattr(error, "reply_code", None) == _NOT_ALLOWED and "limit" in text:
        return "RabbitMQ takes no more connections (the connection limit of the virtual host or of the user)"
    if origin == "psycopg" and (getattr(error, "sqlstate", None) == _TOO_MANY_CONNECTIONS or _is_full(text)):
        return "Postgres takes no more connections (max_connections, or the limit of the database or of the user)"
    return None


def _is_full(text: str) -> bool:
    said = ("too many clients already", "too many connections for", "remaining connection slots are reserved")
    return any(words in text for words in said)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its cause, the cause of that, and so on."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
