"""What a request may hold as a text, a time and a number of a row: what Postgres can compare with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from market_data_store.wire.moments import aware

MAX_ID = 2**63 - 1


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("has a character that no stored text has")
    return text


Text = Annotated[str, Field(max_length=500), AfterValidator(_storable)]
#: Without an offset it is UTC. A JSON body has it as a text.
Moment = Annotated[datetime, Field(strict=False), AfterValidator(aware)]
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
