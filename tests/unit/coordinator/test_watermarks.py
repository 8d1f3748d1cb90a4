from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from market_data_core.telemetry import BackpressureLevel

from market_data_store.coordinator.watermarks import HARD, OK, SOFT, Watermarks
from market_data_store.errors import ConfigurationError

LEVELS = [OK, SOFT, HARD]
MARKS = Watermarks()

shares = st.floats(0.0, 3.0)
watermarks = (
    st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4, unique=True)
    .map(sorted)
    .flatmap(
        lambda marks: st.sampled_from(
            [
                Watermarks(ok_at=marks[0], soft_above=marks[1], hard_until=marks[2], hard_from=marks[3]),
                Watermarks(ok_at=marks[0], hard_until=marks[1], soft_above=marks[2], hard_from=marks[3]),
            ]
        )
    )
)


@pytest.mark.parametrize(
    ("previous", "share", "expected"),
    [
        (OK, 0.0, OK), (OK, 0.5, OK), (OK, 0.501, SOFT), (OK, 0.799, SOFT), (OK, 0.8, HARD),
        (SOFT, 0.8, HARD), (SOFT, 0.799, SOFT), (SOFT, 0.401, SOFT), (SOFT, 0.4, OK),
        (HARD, 0.65, HARD), (HARD, 0.649, SOFT), (HARD, 0.401, SOFT), (HARD, 0.4, OK), (HARD, 5.0, HARD),
    ],
)  # fmt: skip
def test_the_marks_are_those_of_the_design(
    previous: BackpressureLevel, share: float, expected: BackpressureLevel
) -> None:
    assert MARKS.level(previous, share) is expected


@given(watermarks, st.sampled_from(LEVELS), shares)
def test_looking_again_changes_nothing(marks: Watermarks, previous: BackpressureLevel, share: float) -> None:
    level = marks.level(previous, share)
    assert marks.level(level, share) is level


@given(watermarks, st.sampled_from(LEVELS), shares, shares)
def test_more_depth_never_gives_a_lower_level(
    marks: Watermarks, previous: BackpressureLevel, one: float, other: float
) -> None:
    lower, higher = (marks.level(previous, share) for share in sorted((one, other)))
    assert LEVELS.index(lower) <= LEVELS.index(higher)


@given(watermarks, shares)
def test_a_higher_level_before_never_gives_a_lower_one_after(marks: Watermarks, share: float) -> None:
    after = [LEVELS.index(marks.level(previous, share)) for previous in LEVELS]
    assert after == sorted(after)


@given(watermarks, st.data())
def test_within_a_band_the_level_does_not_flap(marks: Watermarks, data: st.DataObject) -> None:
    low, high = data.draw(
        st.sampled_from([(marks.ok_at, marks.soft_above), (max(marks.hard_until, marks.ok_at), marks.hard_from)])
    )
    assume(math.nextafter(low, high) < high)
    inside = st.floats(low, high, exclude_min=True, exclude_max=True)
    level = marks.level(data.draw(st.sampled_from(LEVELS)), data.draw(inside))
    changes = 0
    for share in data.draw(st.lists(inside, max_size=30)):
        new = marks.level(level, share)
        changes, level = changes + (new is not level), new
    assert changes <= 1  # where the two bands overlap, one step can be due


@given(watermarks, st.lists(shares, min_size=1, max_size=50))
def test_a_jump_lands_where_the_depth_is(marks: Watermarks, path: list[float]) -> None:
    level = OK
    for share in path:
        level = marks.level(level, share)
    last = path[-1]
    assert (level is HARD) or last < marks.hard_from
    assert (level is OK) or last > marks.ok_at


@pytest.mark.parametrize(
    "wrong",
    [
        {"ok_at": 0.6}, {"soft_above": 0.9}, {"hard_until": 0.8}, {"hard_until": 0.3}, {"hard_from": 1.1},
        {"ok_at": -0.1}, {"hard_from": float("nan")},
    ],
)  # fmt: skip
def test_marks_out_of_order_are_refused_by_name(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"MDS_{name.upper()}"):
        Watermarks(**wrong)
