"""Lists as aligned columns of plain text: one line for each row, also of ten thousand rows at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from market_data_store.cli.terminal import printable


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> Iterator[str]:
    """Yield the header and the rows as lines; the columns named in `right` end at one place.

    A control character of a foreign text is escaped.
    """
    lines = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(
            _padded(cell, width, right=name in right) for cell, width, name in zip(line, widths, header, strict=True)
        ).rstrip()


def _padded(cell: str, width: int, *, right: bool) -> str:
    spaces = " " * (width - cell_len(cell))
    return spaces + cell if right else cell + spaces
