"""Compares the tokens of requests: in constant time, and few wrong ones of one address."""

from __future__ import annotations

import binascii
import hmac
import logging
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from ipaddress import IPv6Address, ip_address
from threading import Lock

from flask import request

logger = logging.getLogger(__name__)

#: An address may send so many wrong tokens at once, and then one in each second.
BURST = 20
_PER_S = 1.0
#: Of so many addresses it is remembered.
_MOST_ADDRESSES = 1_000


class Verdict(Enum):
    """What is to become of a request."""

    RIGHT = auto()
    #: There is no token, or a wrong one.
    WRONG = auto()
    #: The token was not looked at.
    TOO_MANY = auto()


class WrongTokens:
    """How many wrong tokens each address may still send. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def are_too_many(self, address: str) -> bool:
        """Return whether this address has to wait."""
        with self._lock:
            return self._now(_network(address)) < 1

    def count(self, address: str) -> None:
        """Count a wrong token; the last one before a pause is logged."""
        network = _network(address)
        with self._lock:
            left = self._now(network) - 1
            self._left[network] = (left, self._clock())
            self._left.move_to_end(network)
            if len(self._left) > _MOST_ADDRESSES:
                self._left.popitem(last=False)
        if left < 1:
            logger.warning("Too many wrong tokens from %s; its next ones are answered 429", address)

    def _now(self, network: str) -> float:
        left, at = self._left.get(network, (BURST, self._clock()))
        return min(float(BURST), left + (self._clock() - at) * _PER_S)


class Tokens:
    """Compares the token of the current request with those that open something."""

    def __init__(self) -> None:
        self._wrong = WrongTokens()

    def verdict(self, *right: str, or_password: bool = False) -> Verdict:
        """Judge the request's bearer token, or the password of basic authentication, as a browser sends it."""
        given = _given(or_password=or_password)
        if given is None:
            return Verdict.WRONG
        address = request.remote_addr or ""
        if self._wrong.are_too_many(address):
            return Verdict.TOO_MANY
        if True in {hmac.compare_digest(given, token.encode()) for token in right if token}:  # all are compared
            return Verdict.RIGHT
        self._wrong.count(address)
        return Verdict.WRONG


def _given(*, or_password: bool) -> bytes | None:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return text.strip().encode() or None
    if or_password and scheme.lower() == "basic":
        try:
            return b64decode(text.strip(), validate=True).partition(b":")[2] or None
        except (binascii.Error, ValueError):
            return None
    return None


def _network(address: str) -> str:
    """Return what one client has of addresses: of IPv6 a whole network of 2^64."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(int(found) >> 64) if isinstance(found, IPv6Address) and found.ipv4_mapped is None else address
