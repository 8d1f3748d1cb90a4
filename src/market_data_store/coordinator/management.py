"""What RabbitMQ's management API says of a queue, and no other answer of RabbitMQ does."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from market_data_store.connections.urls import hosts_of, without_credentials
from market_data_store.coordinator.write_probe import overflow_of
from market_data_store.errors import BrokerUnavailable


class QueueFacts(NamedTuple):
    """The API's answer for one queue."""

    #: Messages that workers hold unacknowledged.
    unacknowledged: int
    #: Why the queue takes no message, by its own limits; None if it takes some.
    overflow: str | None
    #: `quorum` or `classic`.
    type: str = ""
    #: The policies that apply to it, by their names, such as `delivery-limit`.
    policy: Mapping[str, Any] = MappingProxyType({})


def facts_of(queue: str, broker_url: str, management_url: str, timeout_s: float) -> QueueFacts:
    """Ask the API at `management_url` for the queue at `broker_url`; raises `BrokerUnavailable`."""
    import httpx  # here, because a producer does not need it

    virtual_host = unquote(urlsplit(hosts_of(broker_url)[0]).path[1:]) or "/"
    path = f"/api/queues/{quote(virtual_host, safe='')}/{quote(queue, safe='')}"
    try:
        url, auth = without_credentials(management_url)  # httpx logs each URL
        answer = httpx.get(url.rstrip("/") + path, auth=auth, timeout=timeout_s)
        found = answer.raise_for_status().json()
        policy = found.get("effective_policy_definition") or {}
        kind = str(found.get("type", ""))
        return QueueFacts(int(found["messages_unacknowledged"]), overflow_of(found), kind, policy)
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise BrokerUnavailable(f"RabbitMQ's management API does not answer ({type(error).__name__})") from error
