"""Where `mds top` gets the status from: the store's servers, or the `/status.json` of a web process."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Self

import click
import httpx

from market_data_store.app import app
from market_data_store.config import Settings
from market_data_store.connections.urls import without_password
from market_data_store.coordinator.cluster import refuse_cluster
from market_data_store.errors import MarketDataStoreError
from market_data_store.status.document import document_of
from market_data_store.status.sampler import Sampler

#: Seconds for an answer of web, which never takes more than 2.
_TIMEOUT_S = 5.0
_PATH = "/status.json"


class Seen(NamedTuple):
    """The newest document, and what keeps a newer one from coming, if anything does."""

    document: dict[str, Any]
    trouble: str = ""


class Source(Protocol):
    """Gives the status again and again. A context manager."""

    #: What is watched, for people.
    name: str

    def newest(self) -> Seen:
        """Return the newest document; raises `MarketDataStoreError` while there was none."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *error: object) -> None:
        """End."""


class OfServers:
    """Asks the broker, the database and the workers, as `mds status` does."""

    def __init__(self, settings: Settings) -> None:
        settings.require_database_url()
        settings.require_broker_url()
        refuse_cluster(app)
        self.name = without_password(settings.database_url)
        self._settings = settings
        self._sampler = Sampler(settings, log=False)

    def newest(self) -> Seen:
        """Return the document of the newest looks."""
        return Seen(document_of(self._sampler.newest(complete=True), self._settings))

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """End; a look that hangs ends with this process."""
        self._sampler.close(timeout_s=0.2)


class OfWeb:
    """Asks a web process. Once it has answered, it may go away and come back."""

    def __init__(self, url: str, token: str) -> None:
        """`url` is that of the status page; `token` is MDS_STATUS_TOKEN, or empty."""
        if httpx.URL(url).scheme not in ("http", "https") or not httpx.URL(url).host:
            raise click.BadParameter(f"{url!r} is no address; give that of the status page, such as http://host:8081")
        self.name = without_password(url).rstrip("/").removesuffix(_PATH)
        self._url = url.rstrip("/").removesuffix(_PATH) + _PATH
        self._client = httpx.Client(
            timeout=_TIMEOUT_S, headers={"Authorization": f"Bearer {token}"} if token else {}, follow_redirects=False
        )
        self._newest: dict[str, Any] | None = None

    def newest(self) -> Seen:
        """Ask for the document."""
        try:
            trouble = ""
            self._newest = self._asked()
        except MarketDataStoreError as error:
            if self._newest is None:
                raise
            trouble = str(error)
        return Seen(self._newest, trouble)

    def _asked(self) -> dict[str, Any]:
        try:
            response = self._client.get(self._url)
        except httpx.HTTPError as error:
            raise MarketDataStoreError(f"{self.name} does not answer ({error}); is web running there?") from error
        if response.status_code == 401:
            raise MarketDataStoreError(f"{self.name} wants a token: set MDS_STATUS_TOKEN to that of the web process")
        if response.status_code != 200:
            raise MarketDataStoreError(f"{self.name} answers with status {response.status_code} instead of {_PATH}")
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict) or "headline" not in document:
            raise MarketDataStoreError(f"{self.name}{_PATH} is not a status of the store; give the page's address")
        return document

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """End."""
        self._client.close()
