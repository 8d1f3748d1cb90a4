"""Finds the records of a JSON file: objects by the line, a list of objects or arrays, or such a list inside objects.

Values stay as they are written: a record is its JSON tokens by name. Lines are read one at a time. A document (what is
not divided into lines) is read as a whole, and may have at most 256 MiB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from market_data_store.errors import InvalidMessage
from market_data_store.files.cells import is_time
from market_data_store.files.opening import LONGEST_LINE, Opened
from market_data_store.files.options import Undecided

Token = msgspec.Raw
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
#: What every row of an export has; the lists in its metadata hold no records.
_EXPORTED = {"provider", "ts", "metadata"}
#: Beside a list of arrays, names under which APIs list the names of their places.
_HEADERS = ("columns", "column_names", "fields", "names")


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """The tokens of a record, and the number of its line, or of the record in a document. `bad` is not a record."""

    number: int
    tokens: Mapping[str, Token]
    bad: str | None = None


def looks_like_json(sample: str) -> bool:
    """Return whether a text is JSON rather than a delimited file."""
    text = sample.lstrip()
    if text[:1] == "{":
        return text[1:].lstrip()[:1] in ("", '"', "}")
    inner = text[1:].lstrip()[:1]
    return text[:1] == "[" and (inner in ("", "{", "[", "]", '"', "-") or inner.isdigit())


def is_lines(opened: Opened) -> bool:
    """Return whether each line is a record of its own."""
    lines = [line for line in opened.sample.split("\n") if line.strip()]
    if not lines or not _is_complete(lines[0]):
        return False
    if len(lines) == 1 and opened.is_whole:
        value = _decoded(lines[0])
        return (isinstance(value, dict) and value.keys() >= _EXPORTED) or not _lists(value, 0)
    return not opened.is_whole or len(lines) > 1


def _is_complete(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_records(opened: Opened, path: str | None, names: Sequence[str]) -> Iterator[JsonRecord]:
    """Yield the records; `names` are those of arrays' places. Raises `InvalidMessage` and `Undecided`."""
    if path is None and is_lines(opened):
        for number, line in enumerate(opened.lines(), 1):
            text = line.strip().removeprefix("\ufeff")
            if text:
                yield _record(number, text, names)
        return
    yield from _of_document(opened, path, names)


def _record(number: int, text: str, names: Sequence[str]) -> JsonRecord:
    try:
        if text[0] == "[":
            return JsonRecord(number, _placed(_ARRAY.decode(text), names))
        return JsonRecord(number, _OBJECT.decode(text))
    except (ValueError, RecursionError):  # not JSON, or JSON as Python has it: NaN
        value = _decoded(text)
    if isinstance(value, dict):
        return JsonRecord(number, {name: token_of(item) for name, item in value.items()})
    return JsonRecord(number, {}, bad=text)


def token_of(value: Any) -> Token:
    """Return a Python value as its token."""
    return msgspec.Raw(json.dumps(value).encode())


def _placed(values: Sequence[Token], names: Sequence[str]) -> dict[str, Token]:
    places = names or [f"#{place}" for place in range(1, len(values) + 1)]
    if len(places) != len(values):
        raise ValueError("an array of another length")
    return dict(zip(places, values, strict=True))


def _of_document(opened: Opened, path: str | None, names: Sequence[str]) -> Iterator[JsonRecord]:
    parts, size = [], 0
    for line in opened.lines():
        parts.append(line)
        size += len(line)
        if size > LONGEST_LINE:
            raise InvalidMessage(f"{opened.path}: a JSON document of more than 256 MiB; make it one record a line")
    text = "".join(parts).removeprefix("\ufeff")
    steps = tuple(path.split(".")) if path else ()
    document = _decoded_document(opened, text)
    found = _list_in(document, steps)
    if found is None:
        raise Undecided(_which(opened, document, path))
    if isinstance(found, dict):
        yield from (_keyed(number, key, record) for number, (key, record) in enumerate(found.items(), 1))
        return
    given = list(names) or _names_beside(document, found)
    for number, record in enumerate(found, 1):
        if isinstance(record, list) and (not given or len(given) == len(record)):
            yield JsonRecord(number, _placed([_raw(item) for item in record], given))
        elif isinstance(record, dict):
            yield JsonRecord(number, {name: _raw(item) for name, item in record.items()})
        else:
            yield JsonRecord(number, {}, bad=json.dumps(record, default=str))


class _Number(str):
    """A number as it is written."""


def _decoded_document(opened: Opened, text: str) -> Any:
    try:
        return json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_Number)
    except RecursionError as error:
        raise InvalidMessage(f"{opened.path}: JSON nested too deeply") from error
    except ValueError as error:
        raise InvalidMessage(f"{opened.path}: not JSON: {error}; nothing of it was stored") from error


def _raw(value: Any) -> Token:
    return msgspec.Raw(_written(value).encode())


def _written(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_written(item)}" for name, item in value.items()) + "}"
    return json.dumps(value)


def _keyed(number: int, key: str, record: Any) -> JsonRecord:
    return JsonRecord(number, {"timestamp": token_of(key), **{name: _raw(item) for name, item in record.items()}})


def _list_in(value: Any, steps: tuple[str, ...]) -> list[Any] | dict[str, Any] | None:
    """Return the list of records at a path, or the only one there is; parallel lists become records."""
    for step in steps:
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return None
    found = _lists(value, 0)
    return found[0] if len(found) == 1 else None


def _lists(value: Any, depth: int) -> list[Any]:
    if isinstance(value, list):
        return [value] if value and isinstance(value[0], dict | list) else []
    if not isinstance(value, dict) or depth > 4:
        return []
    if len(value) > 0 and all(isinstance(item, dict) and item for item in value.values()) and all(map(is_time, value)):
        return [value]
    columns = {name: item for name, item in value.items() if isinstance(item, list) and item and not _nested(item)}
    if len(columns) > max(2, len(value) - len(columns)) and len({len(item) for item in columns.values()}) == 1:
        return [[dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]]
    others = [item for name, item in value.items() if name not in _HEADERS]
    return [found for item in others for found in _lists(item, depth + 1)]


def _nested(items: list[Any]) -> bool:
    return any(isinstance(item, dict | list) for item in items)


def _names_beside(document: Any, records: list[Any]) -> list[str]:
    """Return the names of places that stand beside a list of arrays, if there are any."""
    if isinstance(document, dict):
        for header in _HEADERS:
            named = document.get(header)
            if isinstance(named, list) and records in document.values():
                names = [name.get("name") if isinstance(name, dict) else name for name in named]
                return [str(name) for name in names] if len(names) == len(records[0] or ()) else []
        return next(filter(None, (_names_beside(item, records) for item in document.values())), [])
    return []


def _which(opened: Opened, document: Any, path: str | None) -> str:
    paths = sorted(_paths(document, ""))
    known = f"; there are lists at {', '.join(paths[:8])}" if paths else ""
    if path:
        return f"{opened.path}: --records {path} leads to no list of records{known}"
    return f"{opened.path}: which list holds the records? Give --records PATH{known}"


def _paths(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict) and at.count(".") < 4:
        for name, item in value.items():
            place = f"{at}.{name}" if at else str(name)
            if isinstance(item, list) and item and isinstance(item[0], dict | list):
                yield place
            yield from _paths(item, place)


def text_of(token: Token | None) -> str | None:
    """Return a token as the text of a cell; a list or an object stays JSON."""
    if token is None:
        return None
    raw = bytes(token)
    if raw[:1] == b'"':
        return _TEXT.decode(raw)
    return None if raw == b"null" else raw.decode()


def at_path(tokens: Mapping[str, Token], path: str) -> Token | None:
    """Return the token under a name, or under a path of names with points."""
    if path in tokens:
        return tokens[path]
    first, _, rest = path.partition(".")
    inner = tokens.get(first)
    if not rest or inner is None or bytes(inner)[:1] != b"{":
        return None
    try:
        return at_path(_OBJECT.decode(inner), rest)
    except ValueError:
        return None
