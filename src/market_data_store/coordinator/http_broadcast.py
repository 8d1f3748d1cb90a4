"""Feedback by HTTP: a POST of Core's event as JSON to an endpoint of somebody's choice."""

from __future__ import annotations

import asyncio
import time

import httpx

from market_data_store.coordinator.feedback import FeedbackEvent


class HttpFeedbackBroadcaster:
    """A Core `FeedbackPublisher` over HTTP; tries again on a refused connection, a time-out and a 5xx.

    Waits `backoff_s`, then twice that, and so on between tries; each may take `timeout_s`.
    """

    def __init__(self, endpoint: str, *, timeout_s: float = 2.5, max_retries: int = 3, backoff_s: float = 0.5) -> None:
        self._endpoint = endpoint
        self._max_retries = max_retries
        self._backoff_s = backoff_s
        self._client = httpx.Client(timeout=timeout_s)

    def send(self, event: FeedbackEvent) -> None:
        """Post the event; raises `httpx.HTTPError` after the last try."""
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
            time.sleep(self._backoff_s * 2**attempt)

    async def publish(self, event: FeedbackEvent) -> None:
        """The same, for coroutines."""
        await asyncio.to_thread(self.send, event)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()
