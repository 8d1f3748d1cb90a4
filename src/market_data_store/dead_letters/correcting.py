"""Corrects the rows of letters: by values for their fields, or by a file of letters that somebody has edited.

A row stays JSON text: what is not changed is sent as it was, to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import msgspec

from market_data_store.datasets import dataset_named
from market_data_store.dead_letters.letters import Letter
from market_data_store.errors import InvalidMessage
from market_data_store.wire.fields import fields_of, names_of
from market_data_store.wire.reader import stored_defaults

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


#: msgspec takes no union with `Raw`.
_NOTHING = msgspec.Raw()


class Exported(msgspec.Struct, omit_defaults=True):
    """A letter in a file, one a line: `row` is to be corrected, the rest says what is wrong and where it was."""

    letter: int
    row: msgspec.Raw
    dataset: str | None = None
    reason: str | None = None
    file: str | None = None
    line: int | None = None
    #: Fills what the row leaves out; the same for all rows of one message.
    defaults: msgspec.Raw = _NOTHING


_decode = msgspec.json.Decoder(Exported).decode


def exported(letter: Letter) -> bytes | None:
    """Return a letter as a line of a file; None if it does not hold a row."""
    if letter.row is None:
        return None
    defaults = _NOTHING if letter.defaults is None else msgspec.Raw(letter.defaults.encode())
    row = msgspec.Raw(letter.row.encode())
    known = (letter.dataset, letter.reason, letter.file, letter.line)
    return msgspec.json.encode(Exported(letter.id, row, *known, defaults))


def corrections(lines: Iterable[bytes], name: str) -> Iterator[tuple[int, Exported]]:
    """Yield the letters of a file with their ids; raises `InvalidMessage`, which names the line."""
    seen: set[int] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidMessage(
                f"{name}: line {number:,}: {error}; give what `mds dead-letters export` wrote, with `row` corrected"
            ) from error
        if found.letter in seen:
            raise InvalidMessage(f"{name}: line {number:,}: letter {found.letter} stands twice")
        seen.add(found.letter)
        yield found.letter, found


def text_of(letter: Letter) -> str | None:
    """Return a letter as an indented text to be edited; None if it does not hold a row."""
    line = exported(letter)
    return None if line is None else msgspec.json.format(line, indent=2).decode() + "\n"


def edited(letter: Letter, text: str) -> Letter:
    """Return the letter with the row and the defaults of an edited text; raises `InvalidMessage`."""
    try:
        found = _decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidMessage(f"letter {letter.id}: {error}; change `row` only, and keep it JSON") from error
    if found.letter != letter.id:
        raise InvalidMessage(f"letter {letter.id}: `letter` is {found.letter}; change `row` only")
    return corrected(letter, found)


def corrected(letter: Letter, by: Exported) -> Letter:
    """Return the letter with the row and the defaults of the file."""
    defaults = bytes(by.defaults).decode()
    return replace(letter, row=bytes(by.row).decode(), defaults=None if defaults in ("", "null") else defaults)


def with_values(letter: Letter, values: Mapping[str, str]) -> Letter | None:
    """Return the letter with these values in its row, where an empty one removes the field.

    None for a letter that does not hold an object. Raises `InvalidMessage` for a field that the dataset does not have,
    and for a value that the field does not take.
    """
    if letter.row is None or letter.dataset is None:
        return None
    try:
        row = _object(letter.row)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    dataset = dataset_named(letter.dataset)
    by_name = {name: f for f in fields_of(dataset) for name in f.names}
    for name in values:
        if name not in by_name:
            known = ", ".join(f.name for f in fields_of(dataset))
            raise InvalidMessage(f"--set {name}: {dataset.name} has no such field; use one of {known}")
    given = {by_name[name].name: value for name, value in values.items()}
    stored_defaults(dataset, {name: value for name, value in given.items() if value})
    for name, value in given.items():
        others = {*by_name[name].names} - names_of(dataset).shared | {name}
        row = {key: token for key, token in row.items() if key not in others}
        if value:
            row[name] = msgspec.Raw(msgspec.json.encode(value))
    return replace(letter, row=msgspec.json.encode(row).decode())
