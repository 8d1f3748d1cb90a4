from __future__ import annotations

from itertools import islice

from market_data_store.coordinator.backoff import delays


def test_delays_double_up_to_the_longest() -> None:
    assert list(islice(delays(0.5, 3.0, jitter=0.0), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_no_delay_stays_none() -> None:
    assert list(islice(delays(0.0, 3.0), 3)) == [0.0, 0.0, 0.0]


def test_jitter_only_shortens_and_keeps_processes_out_of_step() -> None:
    runs = [list(islice(delays(1.0, 8.0), 5)) for _ in range(200)]
    for run in runs:
        assert all(full / 2 <= delay <= full for delay, full in zip(run, [1.0, 2.0, 4.0, 8.0, 8.0], strict=True))
    firsts = [run[0] for run in runs]
    assert max(firsts) - min(firsts) > 0.25
