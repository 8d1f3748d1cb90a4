"""`GET /metrics` of the Flask application: everything that its processes count, including their requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPMethod

from flask import Flask, Request, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_flask_exporter import PrometheusMetrics

from market_data_store.metrics import multiprocess

__all__ = ["install"]

#: Bounds of the buckets of response times, in seconds; a health check takes at most two.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
_METHODS = frozenset(HTTPMethod)


def install(app: Flask) -> None:
    """Serve `GET /metrics` for all gunicorn processes (see `gunicorn_conf`), and count requests.

    Must be called before the first request. Labels are status, method and `endpoint`. The endpoint is the URL's rule
    (`/dead-letters/<id>`) or "none", so that requests for many paths make no additional series.
    """
    # Its own registry: in the shared one, a second application in this process would find the names taken and count
    # nothing.
    requests = CollectorRegistry()
    exporter = _Exporter(app, defaults_prefix="mds", group_by=endpoint, buckets=_BUCKETS, registry=requests)
    # A client may invent a method. Such a request is answered with 405 and not counted.
    uncounted: Callable[[], None] = exporter.do_not_track()(lambda: None)

    @app.before_request
    def count_known_methods() -> None:
        if request.method not in _METHODS:
            uncounted()


def endpoint(request: Request) -> str:
    """Return the value by which a request's metrics are grouped; the label has this function's name."""
    return str(request.url_rule or "none")


class _Exporter(PrometheusMetrics):
    def generate_metrics(self, accept_header: str | None = None, names: Sequence[str] | None = None) -> tuple[str, str]:
        """Return the text and its content type.

        Replaces the exporter's own method. With several processes, that fails for `?name[]=` (0.23), and with
        prometheus_client 0.26 for an Accept header whose version is not a number.
        """
        try:
            encode, content_type = choose_encoder(accept_header or "")
            return encode(self._served(names)).decode(), content_type
        except (TypeError, ValueError):
            encode, content_type = choose_encoder("")
            return encode(self._served(names)).decode(), content_type

    def _served(self, names: Sequence[str] | None) -> multiprocess.View:
        served = multiprocess.served(self.registry)
        return served.restricted_registry(names) if names else served
