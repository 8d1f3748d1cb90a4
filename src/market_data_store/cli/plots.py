"""Small pictures of text for a terminal: a bar with marks, and a plot one line high."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.text import Text

_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"


def bar(share: float | None, width: int, marks: Sequence[float], styles: Sequence[str], *, ascii_only: bool) -> Text:
    """Draw a bar that is full at 1.0, with a line at each of the marks.

    A filled cell has the style of its range: `styles` has one for each range that the marks divide, so one more than
    there are marks. None draws an empty bar.
    """
    full, empty, mark = ("#", ".", "|") if ascii_only else ("█", "·", "┃")
    filled = 0 if share is None else round(min(1.0, max(0.0, share)) * width)
    if share and not filled:
        filled = 1  # a little is not nothing
    at = {min(width - 1, int(each * width)) for each in marks}
    text = Text()
    for cell in range(width):
        style = styles[sum((cell + 0.5) / width > each for each in marks)]
        if cell in at:
            text.append(mark, style if cell < filled else "dim")
        else:
            text.append(*((full, style) if cell < filled else (empty, "dim")))
    return text


def plot(values: Sequence[float | None], width: int, styles: Sequence[str] = (), *, ascii_only: bool) -> Text:
    """Plot values, oldest first, from 0 to their maximum; a cell has the mean of its values, and the style of the last.

    `styles` has one for each value. A cell without a value stays empty.
    """
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    cells: list[tuple[float | None, str]] = []
    number = min(width, len(values))
    for first, last in pairwise(round(cell * len(values) / number) for cell in range(number + 1)) if number else ():
        known = [value for value in values[first:last] if value is not None]
        style = styles[last - 1] if styles else ""
        cells.append((sum(known) / len(known) if known else None, style))
    most = max((value for value, _ in cells if value is not None), default=0.0)
    text = Text(" " * (width - number))
    for cell, style in cells:
        if cell is None:
            text.append(" ")
        else:
            text.append(blocks[round(cell / most * (len(blocks) - 1))] if most > 0 else blocks[0], style)
    return text
