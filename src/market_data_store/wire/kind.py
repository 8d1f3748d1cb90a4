"""What a kind of column is. `kinds` has the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from market_data_store.errors import Reason
from market_data_store.wire.arrow_casts import Cast

#: Converts decoded values, none of them None, to stored ones; raises ValueError.
Finish = Callable[[list[Any]], list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How values of one kind of column are read, stored and exported."""

    #: The type that msgspec decodes from JSON.
    wire: Any
    #: Makes the reason for a value that is not accepted, without the field's name.
    problem: Callable[[Any], Reason]
    #: Postgres's name of the type, and the Arrow type that pgpq encodes as that type.
    copy_type: str
    arrow_type: str
    #: Converts an Arrow column to stored values, see `arrow_casts`.
    cast: Cast
    #: Precision and scale, for exact numbers.
    digits: tuple[int, int] | None = None
    finish: Finish = list
    #: For times: returns the nanoseconds beyond each microsecond that `finish` returns. `cast` returns both.
    beyond: Callable[[list[Any]], list[int]] = lambda values: []
    #: Converts one value to what `wire` accepts, where Celery's JSON or Python objects have another form of it.
    prepare: Callable[[Any], Any] = lambda value: value
    #: Converts a CSV cell to its JSON value, for kinds where the cell's text would mean something else in JSON.
    from_csv: Callable[[str], Any] | None = None
    #: SQL by which an export writes the column {0}, and that for CSV where it differs.
    export: str = "{0}"
    export_csv: str | None = None
    #: Whether Arrow makes a column of values as they are sent; lists, objects and exact numbers are read one by one.
    is_plain: bool = True
    #: Whether the text `null` is a text; msgspec would read it as no value.
    is_text: bool = False
    #: Whether a text that is stored as a number could not be read back from it.
    loses: Callable[[str], bool] | None = None
    #: Makes the stored value from the hash of a row's content, for a row without a value.
    from_hash: Callable[[int], Any] = lambda value: value
