"""Passwords of odd characters, as hosts hand them out and people choose them."""

from __future__ import annotations

from urllib.parse import quote

#: What begins and ends each password, so that a part of it is found where it must not be.
_LEFT, _RIGHT = "Zq1xK", "9vXw7"

PASSWORDS = tuple(
    f"{_LEFT}{odd}{_RIGHT}"
    for odd in (
        *"#?/[]@:%+&=;, \"'\\`<>^{}|!$*()~.",
        "é",
        "пароль",
        "密码",
        "🔑",
        "%2F",
        "%zz",
        "100%ab",
        "://",
        "@host:1/0?x=y#z",
    )
)
#: All of them together.
WORST = f"{_LEFT}#?/[]@:%+&=;, \"'\\`<>^{{}}|é密🔑%2F%zz://{_RIGHT}"


def encoded(password: str) -> str:
    """As it is written in a URL."""
    return quote(password, safe="")


def shows(text: str, password: str) -> bool:
    """Whether a text has one of the password's ends, in whatever spelling the middle is."""
    return any(part in text for part in (password, encoded(password), _LEFT, _RIGHT))


def showing(text: str, password: str) -> list[str]:
    """The lines that show it."""
    return [line for line in text.splitlines() if shows(line, password)]
