"""Lets contenders take turns, round after round, with the yardstick before every fourth one and at a round's end.

So other work on the machine affects all contenders, and each ratio is to a bare COPY of about the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.contender import Contender
from benchmarks.results import Run
from market_data_store.cli.terminal import ShowProgress
from market_data_store.errors import MarketDataStoreError

_YARDSTICK_EVERY = 4


def order(yardstick: Contender, contenders: Sequence[Contender]) -> Iterator[Contender]:
    """Yield the turns of a round."""
    for number, contender in enumerate(contenders):
        if number % _YARDSTICK_EVERY == 0:
            yield yardstick
        yield contender
    yield yardstick


def take_turns(
    yardstick: Contender, contenders: Sequence[Contender], repeat: int, show: ShowProgress, failed: dict[str, str]
) -> Iterator[Run]:
    """Yield the runs of all rounds. A contender that fails gets no further turns; `failed` gets the reason."""
    turns = list(order(yardstick, contenders))
    last = ""
    for number in range(repeat):
        for turn, contender in enumerate(turns):
            name = str(contender.label)
            if name in failed:
                continue
            show(number * len(turns) + turn, repeat * len(turns), f"round {number + 1}: {name}", last)
            try:
                contender.prepare()
                run = Run(contender.label, number, contender.run())
            except MarketDataStoreError as error:
                failed[name] = str(error)
                continue
            last = f"(last: {run.rate:,.0f} rows/s)"
            yield run
