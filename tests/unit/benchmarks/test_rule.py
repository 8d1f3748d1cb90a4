"""Two versions are compared round by round, and the rule allows for what is chance."""

from __future__ import annotations

import pytest

from benchmarks.against.builds import constraints, differing, worker_arguments
from benchmarks.against.tables import markdown
from benchmarks.against.turns import in_turn
from benchmarks.against.verdict import AGAIN, PRESENT, Comparison, Measure, Sample, comparisons
from market_data_store.errors import MarketDataStoreError

OTHER = "e122a62"
DRAIN = Measure("new rows, redis", "rows/s")
IMPORT = Measure("import", "ms", most=0.75)


def compared(measure: Measure, rounds: list[tuple[float, float, float]]) -> Comparison:
    """Of the values of the other version, the present one, and the present one again, round by round."""
    samples = [
        Sample(measure, contender, number, value)
        for number, values in enumerate(rounds)
        for contender, value in zip((OTHER, PRESENT, AGAIN), values, strict=True)
    ]
    (found,) = comparisons(samples, OTHER)
    return found


def test_a_ratio_is_taken_within_a_round_and_the_median_of_them_counts() -> None:
    # The machine is ten times as slow in the second round; the third is an accident of the present version's.
    found = compared(DRAIN, [(1000, 980, 980), (100, 99, 99), (1000, 200, 200)])
    assert found.ratio == pytest.approx(0.98)
    assert [found.least, found.highest] == pytest.approx([0.2, 0.99])
    assert (found.other, found.present) == (1000, 200)
    assert found.holds


@pytest.mark.parametrize(("rate", "holds"), [(951, True), (949, False), (2000, True)])
def test_a_drain_may_be_slower_by_five_percent(rate: float, holds: bool) -> None:
    found = compared(DRAIN, [(1000, rate, rate)])
    assert found.limit == pytest.approx(0.95)
    assert found.holds is holds


@pytest.mark.parametrize("again", [0.9, 1 / 0.9])
@pytest.mark.parametrize(("rate", "holds"), [(901, True), (899, False)])
def test_a_drain_may_be_slower_by_what_two_runs_of_one_version_differ_by(
    again: float, rate: float, holds: bool
) -> None:
    found = compared(DRAIN, [(1000, rate, rate * again)])
    assert found.limit == pytest.approx(0.9)
    assert found.holds is holds


@pytest.mark.parametrize(("cost", "holds"), [(749, True), (751, False)])
def test_a_cost_has_a_limit_that_chance_does_not_move(cost: float, holds: bool) -> None:
    found = compared(IMPORT, [(1000, cost, cost * 1.5)])
    assert found.limit == 0.75
    assert found.holds is holds


def test_a_round_without_all_of_them_does_not_count() -> None:
    samples = [Sample(DRAIN, OTHER, 0, 10.0), Sample(DRAIN, PRESENT, 0, 5.0), Sample(DRAIN, PRESENT, 1, 10.0)]
    assert comparisons(samples, OTHER) == []
    samples += [Sample(DRAIN, OTHER, 1, 10.0), Sample(DRAIN, AGAIN, 1, 10.0)]
    (found,) = comparisons(samples, OTHER)
    assert (found.rounds, found.ratio) == (1, 1.0)


def test_turns_alternate() -> None:
    names = [OTHER, PRESENT, AGAIN]
    assert [list(in_turn(names, number)) for number in range(3)] == [names, [AGAIN, PRESENT, OTHER], names]


def test_the_table_says_what_holds_and_where_the_cpu_time_goes() -> None:
    facts = {"cpu_us_parent": 1.0, "cpu_us_children": 2.0, "cpu_us_postgres": 3.0, "cpu_us_rabbitmq": 4.0}
    samples = [
        Sample(DRAIN, OTHER, 0, 1000.0, facts),
        Sample(DRAIN, PRESENT, 0, 700.0, {**facts, "cpu_us_children": 7.0}),
        Sample(DRAIN, AGAIN, 0, 560.0, facts),
        Sample(IMPORT, OTHER, 0, 800.0),
        Sample(IMPORT, PRESENT, 0, 800.0),
        Sample(IMPORT, AGAIN, 0, 800.0),
    ]
    text = markdown({"machine": "2 cores"}, comparisons(samples, OTHER), OTHER, {"RabbitMQ": "not installed"})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert [
        "new rows, redis",
        "1,000 rows/s",
        "700 rows/s",
        "0.700",
        "0.70 to 0.70",
        "0.800",
        ">= 0.800",
        "misses",
    ] in rows
    assert ["import", "800 ms", "800 ms", "1.000", "1.00 to 1.00", "1.000", "<= 0.750", "misses"] in rows
    assert ["new rows, redis", PRESENT, "1.00", "7.00", "3.00", "4.00", "15.00", "1.500"] in rows
    assert "differ by more than 10%:\nnew rows, redis." in text
    assert "- RabbitMQ: not installed" in text


def test_a_version_gets_the_running_packages_unless_it_refuses_them() -> None:
    running = {"celery": "5.7.1", "kombu": "5.7.0", "rich": "14.0.0"}
    assert constraints(["celery[redis]>=5.6,<5.7", "kombu>=5.7,<5.8"], running) == ["kombu==5.7.0", "rich==14.0.0"]
    assert differing(running, {**running, "celery": "5.6.2", "pgpq": "0.9"}) == {
        "celery": ("5.7.1", "5.6.2"),
        "pgpq": ("none", "0.9"),
    }


def test_a_version_runs_its_worker_as_its_procfile_does() -> None:
    procfile = "release: mds migrate\nworker: celery -A market_data_store.app worker -Q 'a,b'\n"
    assert worker_arguments(procfile) == (
        "celery", "-A", "market_data_store.app", "worker", "-Q", "a,b", "--concurrency=2",
    )  # fmt: skip
    with pytest.raises(MarketDataStoreError, match="Procfile"):
        worker_arguments("web: gunicorn\n")
