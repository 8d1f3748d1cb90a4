"""Feedback by HTTP: POSTs Core's event as JSON to a configured endpoint."""

from __future__ import annotations

import asyncio
import math
import time

import httpx

from market_data_store.connections.urls import without_credentials
from market_data_store.coordinator.backoff import delays
from market_data_store.coordinator.feedback import FeedbackEvent


class HttpFeedbackBroadcaster:
    """A Core `FeedbackPublisher` over HTTP that retries after a refused connection, a time-out and a 5xx.

    Between tries it waits `backoff_s`, then twice that, and so on; each try takes at most `timeout_s`. The
    monitor's `Delivery` retries as well. These retries stay because they are part of the pipeline's contract
    (MDS_FB_HTTP_MAX_RETRIES, MDS_FB_HTTP_BACKOFF), and because users of this class alone have no others.
    """

    def __init__(self, endpoint: str, *, timeout_s: float = 2.5, max_retries: int = 3, backoff_s: float = 0.5) -> None:
        self._endpoint, auth = without_credentials(endpoint)  # httpx names the URL in its log and its errors
        self._max_retries = max_retries
        self._backoff_s = backoff_s
        self._client = httpx.Client(auth=auth, timeout=timeout_s)

    def send(self, event: FeedbackEvent) -> None:
        """Post the event; raises `httpx.HTTPError` after the last try."""
        pauses = delays(self._backoff_s, math.inf, jitter=0.0)
        for attempt in range(self._max_retries + 1):
            try:
                answer = self._client.post(self._endpoint, json=event.model_dump(mode="json"))
                answer.raise_for_status()
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500 or attempt == self._max_retries:
                    raise
            except httpx.TransportError:
                if attempt == self._max_retries:
                    raise
            else:
                return
            time.sleep(next(pauses))

    async def publish(self, event: FeedbackEvent) -> None:
        """Post the event as `send` does, without blocking the event loop."""
        await asyncio.to_thread(self.send, event)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
