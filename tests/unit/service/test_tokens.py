"""Wrong tokens: how many of an address are looked at, and of how many addresses that is remembered."""

from __future__ import annotations

import pytest

from market_data_store.service import tokens
from market_data_store.service.tokens import BURST, WrongTokens


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def use_up(wrong: WrongTokens, address: str) -> None:
    for _ in range(BURST):
        assert not wrong.are_too_many(address)
        wrong.count(address)
    assert wrong.are_too_many(address)


def test_after_a_burst_an_address_has_one_a_second() -> None:
    wrong = WrongTokens(clock := Clock())
    use_up(wrong, "10.0.0.1")
    assert not wrong.are_too_many("10.0.0.2")
    clock.now += 1
    assert not wrong.are_too_many("10.0.0.1")
    wrong.count("10.0.0.1")
    assert wrong.are_too_many("10.0.0.1")
    clock.now += 10 * BURST
    use_up(wrong, "10.0.0.1")


def test_the_addresses_of_one_ipv6_network_are_one() -> None:
    wrong = WrongTokens(Clock())
    use_up(wrong, "2001:db8::1")
    assert wrong.are_too_many("2001:db8::ffff:2")
    assert not wrong.are_too_many("2001:db8:0:1::1")
    use_up(wrong, "::ffff:10.0.0.1")
    assert not wrong.are_too_many("::ffff:10.0.0.2")


def test_few_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_MOST_ADDRESSES", 3)
    wrong = WrongTokens(Clock())
    use_up(wrong, "10.0.0.1")
    for other in range(2, 5):
        wrong.count(f"10.0.0.{other}")
    assert not wrong.are_too_many("10.0.0.1")
    assert len(wrong._left) == 3
