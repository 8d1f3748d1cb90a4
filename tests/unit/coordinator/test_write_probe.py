"""What brokers say that take no write."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from market_data_store.coordinator.write_probe import overflow_of, refusal_in
from market_data_store.errors import BrokerUnavailable

LIMIT = "the queue has reached its max-length of 1,000, and its policy rejects what comes"
BYTES = "the queue has reached its max-length-bytes of 9, and its policy rejects what comes"


@pytest.mark.parametrize(
    ("definition", "arguments", "ready", "expected"),
    [
        ({"max-length": 1_000, "overflow": "reject-publish"}, {}, 1_000, LIMIT),
        ({"max-length": 1_000, "overflow": "reject-publish-dlx"}, {}, 1_001, LIMIT),
        ({"max-length": 1_000, "overflow": "reject-publish"}, {}, 999, None),
        ({"max-length": 1_000, "overflow": "drop-head"}, {}, 1_000, None),
        ({"max-length": 1_000}, {}, 1_000, None),
        ({"overflow": "reject-publish"}, {"x-max-length": 1_000}, 1_000, LIMIT),
        ({"overflow": "reject-publish", "max-length-bytes": 9}, {}, 3, BYTES),
        ({"overflow": "reject-publish"}, {}, 1_000, None),
        (None, None, 1_000, None),
    ],
)
def test_a_queue_overflows_when_its_policy_rejects_the_next_message(
    definition: Any, arguments: Any, ready: int, expected: str | None
) -> None:
    queue = {
        "effective_policy_definition": definition,
        "arguments": arguments,
        "messages_ready": ready,
        "message_bytes_ready": 3 * ready,
    }
    assert overflow_of(queue) == expected


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (ResponseError("MISCONF Redis cannot save.\nSee its log."), "MISCONF Redis cannot save."),
        (OutOfMemoryError("command not allowed", status_code="OOM"), "OOM command not allowed"),
        (NoPermissionError("User x has no permissions"), None),
        (ConnectionRefusedError("refused"), None),
        (None, None),
    ],
)
def test_the_words_of_a_redis_that_answers_with_an_error_are_kept(
    cause: Exception | None, expected: str | None
) -> None:
    error = BrokerUnavailable("cannot connect")
    error.__cause__ = cause
    assert refusal_in(error) == expected
