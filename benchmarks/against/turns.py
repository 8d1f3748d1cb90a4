"""Whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence


def in_turn(names: Sequence[str], round_number: int) -> Sequence[str]:
    """The names in their order, in every other round backwards: none is always the first."""
    return names if round_number % 2 == 0 else names[::-1]
