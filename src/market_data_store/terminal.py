"""How the commands show what others wrote, and when."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(time: datetime) -> str:
    """To the second, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def printable(text: str) -> str:
    """A foreign text's control characters would be the terminal's."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
