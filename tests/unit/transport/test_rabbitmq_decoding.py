"""What RabbitMQ says of a message is decoded as py-amqp decodes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import amqp
import pytest
from amqp import spec
from amqp.serialization import decode_properties_basic, dumps
from hypothesis import given
from hypothesis import strategies as st

from market_data_store.transport.rabbitmq_decoding import delivery, properties

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.decimals(min_value=-1000, max_value=1000, places=2)
    | _TEXTS
    | st.datetimes(datetime(1970, 1, 2), datetime(2090, 1, 1)).map(lambda moment: moment.replace(microsecond=0))
)
_TABLES = st.recursive(
    st.dictionaries(_TEXTS, _SCALARS, max_size=6),
    lambda tables: st.dictionaries(_TEXTS, _SCALARS | tables | st.lists(_SCALARS, max_size=3), max_size=4),
    max_leaves=12,
)
_PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "application_headers": _TABLES,
        "delivery_mode": st.integers(0, 255),
        "priority": st.integers(0, 255),
        "timestamp": st.integers(0, 2**64 - 1),
        **{name: _TEXTS for name, kind in amqp.Message.PROPERTIES if kind == "s"},
    },
)


@given(_PROPERTIES)
def test_properties_are_those_that_py_amqp_reads(sent: dict[str, Any]) -> None:
    encoded = b"head" + amqp.Message(b"", **sent)._serialize_properties()
    assert properties(encoded, 4) == decode_properties_basic(encoded, 4)


@pytest.mark.parametrize("value", [b"S\0\0\0\2\xff\xfe", b"x\0\0\0\2\xff\xfe", b"L" + b"\xff" * 8, b"f\0\0\0\0"])
def test_values_that_others_than_py_amqp_write(value: bytes) -> None:
    table = b"\3key" + value
    encoded = b"\x20\0" + len(table).to_bytes(4, "big") + table
    assert properties(encoded, 0) == decode_properties_basic(encoded, 0)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"\x80\0\2\xff\xfe", id="a text that is not UTF-8"),
        pytest.param(b"\x20\0\0\0\0\6\3keyT" + b"\xff" * 8, id="a time in the year 10000"),
        pytest.param(b"\x20\0\0\0\0\5\3key?", id="an unknown type"),
        pytest.param(b"\x80", id="cut"),
    ],
)
def test_properties_that_cannot_be_decoded_count_as_none(encoded: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert properties(encoded, 0) == ({}, len(encoded))
    assert "The properties of a message cannot be decoded" in caplog.text


@given(_TEXTS, st.integers(0, 2**64 - 1), st.booleans(), _TEXTS, _TEXTS)
def test_a_delivery(consumer: str, number: int, redelivered: bool, exchange: str, routing_key: str) -> None:
    sent = [consumer, number, redelivered, exchange, routing_key]
    assert list(delivery(bytes(4) + dumps(_ARGUMENTS, sent))) == sent


_ARGUMENTS = next(args for sig, args, *_ in amqp.Channel._METHODS.values() if sig == spec.Basic.Deliver)


def test_names_of_a_delivery_may_be_anything() -> None:
    assert delivery(bytes(4) + b"\1c" + bytes(8) + b"\1" + b"\2\xff\xfe" + b"\0").exchange == "\ufffd\ufffd"
