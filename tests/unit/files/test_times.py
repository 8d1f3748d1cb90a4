"""How the texts of a column are read as times."""

from __future__ import annotations

import random
import re
from datetime import datetime, timedelta, timezone

from market_data_store.files.times import _formats, _formats_of, _like, _may_fit

MOMENT = datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone(timedelta(hours=2)))


def test_a_text_is_compared_with_few_formats_and_with_each_that_it_may_have() -> None:
    """Each format that is compared is compiled, which takes 0.1 ms."""
    for format_ in random.Random("formats").sample(_formats(), 300):  # noqa: S311  # no secret
        text = MOMENT.strftime(format_)
        shape = re.sub(r"\d+", "9", text)
        like = _like(shape)
        assert format_ in {each for each in like if _may_fit(shape, each)}, text
        assert format_ in _formats_of([text]) or "%y" in format_, text
        assert len(like) < 600, text


def test_a_text_that_is_no_time_is_compared_with_no_format() -> None:
    assert _like("p") == _like("S9/9/9/9") == []
