"""Whatever a message says of itself, the reader returns headers of known types and sizes, or a letter's reason."""

from __future__ import annotations

import json
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.compression import compress

from market_data_store.protocol import TASK
from market_data_store.worker.headers import Headers, Unusable, read

#: Every field of Celery's protocols 1 and 2, and those that workers and brokers add.
NAMES = (
    "lang",
    "task",
    "id",
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "meth",
    "shadow",
    "eta",
    "expires",
    "retries",
    "timelimit",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "ignore_result",
    "compression",
    "utc",
    "taskset",
    "chord",
    "callbacks",
    "errbacks",
    "args",
    "kwargs",
    "chain",
    "enqueued_at",
    "replays",
    "turns",
    "reached",
    "redelivered",
    "x-delivery-count",
    "x-death",
    "periodic_task_name",
)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 10**400, -1])
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(["2020-01-01", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "x" * 300, "\ud800"])
)
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
HEADERS = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(NAMES, VALUE), "task": VALUE | st.just(TASK), "id": VALUE | st.just("an id")}
)


def message(headers: dict[Any, Any], body: bytes = b"", **more: Any) -> Any:
    return SimpleNamespace(**{"headers": headers, "body": body, "properties": {}, "content_type": None, **more})


def reason(headers: dict[str, Any], body: bytes = b"", **more: Any) -> str:
    with pytest.raises(Unusable) as caught:
        read(message(headers, body, **more))
    return caught.value.reason.text


def read_or_refused(sent: Any) -> Headers | None:
    """The headers, which fit; None for a reason that can be logged."""
    try:
        found = read(sent)
    except Unusable as error:
        said = error.reason.text
    else:
        types = get_type_hints(Headers)
        for name, value in msgspec.structs.asdict(found).items():
            assert name == "replays" or msgspec.convert(value, types[name]) == value
            assert not isinstance(value, str) or len(value) <= 1_024
        assert found.id
        assert found.id.isprintable()
        assert found.lineage is None or found.lineage["root_id"]
        return found
    assert len(said) < 1_000
    assert said.isprintable()
    return None


@given(HEADERS, VALUE, VALUE, VALUE)
def test_headers_of_protocol_2(headers: dict[str, Any], kind: Any, reply_to: Any, correlation_id: Any) -> None:
    properties = {"reply_to": reply_to, "correlation_id": correlation_id}
    read_or_refused(message(headers, b"x", content_type=kind, properties=properties))


@given(HEADERS.filter(lambda headers: "task" in headers), HEADERS.map(lambda h: {**h, "args": []}), st.booleans())
def test_bodies_of_protocol_1(body: dict[str, Any], headers: dict[str, Any], is_compressed: bool) -> None:
    headers.pop("task", None)
    text = json.dumps(body, default=str).encode("utf-8", "surrogatepass")
    if is_compressed:
        text, headers["compression"] = compress(text, "gzip")
    found = read_or_refused(message(headers, text))
    assert found is None or found.is_protocol_1


@given(st.binary())
def test_bodies_without_headers(body: bytes) -> None:
    with pytest.raises(Unusable):
        read(message({}, body))


@pytest.mark.parametrize(
    ("headers", "begin"),
    [
        ({"task": "celery.map", "id": "x"}, "task: 'celery.map' is unknown here"),
        ({"task": TASK, "id": "x\ny"}, "id: 'x\\ny' is not a name"),
        ({"task": TASK, "id": "i" * 256}, "id: 'iii"),
        ({"task": TASK, "id": "x", "retries": "1"}, "retries: '1' does not fit"),
        ({"task": TASK, "id": "x", "group": {}}, "group: '{}' does not fit"),
        ({"task": TASK, "id": "x", "expires": "2020-01-01T00:00:00"}, "expires: '2020-01-01T00:00:00' was over"),
        ({"task": TASK, "id": "x", "compression": 5}, "compression: '5' does not fit"),
    ],
)
def test_what_does_not_fit_is_named(headers: dict[str, Any], begin: str) -> None:
    assert reason(headers).startswith(begin)


def test_what_a_worker_can_do_without_is_left_out() -> None:
    sent = {"timelimit": ["1m", "abc"], "argsrepr": 5, "kwargsrepr": "x" * 9_999, "replays": [1], "shadow": "\x1b"}
    found = read(message({"task": TASK, "id": "x", **sent}, properties={"reply_to": 5, "correlation_id": "\n"}))
    assert found == Headers(id="x", kwargsrepr="x" * 1_024)


@pytest.mark.parametrize("rows", ['[{"symbol": "\\ud800", "open": NaN}]', "[" + "[1]," * 100_000 + "1]"])
def test_the_arguments_of_protocol_1_are_skipped(rows: str) -> None:
    body = f'{{"task": "{TASK}", "id": "an id", "args": ["bars", {rows}], "kwargs": {{}}}}'.encode()
    assert read(message({}, body)).id == "an id"


@pytest.mark.parametrize("id_", [None, "", 5, [], {}])
def test_a_message_of_protocol_1_without_a_usable_id_has_that_of_its_body_also_if_that_was_decoded(id_: Any) -> None:
    """py-amqp decodes a body that is said to be UTF-8."""
    body = json.dumps({"task": TASK, "id": id_, "args": [], "kwargs": {}, "note": "\u00e9"}, ensure_ascii=False)
    expected = f"sha256:{sha256(body.encode()).hexdigest()}"
    for sent in (body, body.encode(), memoryview(body.encode())):
        assert read(message({}, sent)).id == expected  # type: ignore[arg-type]
    with pytest.raises(Unusable, match="eta: "):
        read(message({"eta": 5}, body))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["root_id", "group_index", "retries", "eta", "expires", "task", "id"])
@pytest.mark.parametrize("value", ["\ud800", {"\ud800": "\ud800"}, ["\ud800"]], ids=ascii)
def test_half_a_surrogate_pair_is_refused_as_any_other_text_where_it_does_not_fit(name: str, value: Any) -> None:
    if (name, value) == ("root_id", "\ud800"):
        assert read(message({"task": TASK, "id": "x", name: value})).root_id == value
    else:
        assert reason({"task": TASK, "id": "x", name: value}).startswith(f"{name}: ")
