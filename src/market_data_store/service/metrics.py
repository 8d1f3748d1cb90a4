"""`GET /metrics` of the Flask application: what its processes count, the requests that they answer included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPMethod

from flask import Flask, Request, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_flask_exporter import PrometheusMetrics

from market_data_store.metrics import multiprocess

__all__ = ["install"]

#: Seconds; a health check has two.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
_METHODS = frozenset(HTTPMethod)


def install(app: Flask) -> None:
    """Serve `GET /metrics`, also for several gunicorn processes at once (see `gunicorn_conf`), and count requests.

    Call it before the first request. Labels are status, method and `endpoint`, the rule of the URL
    (`/dead-letters/<id>`) or "none", so that nobody makes series by asking for many paths.
    """
    # A registry of its own: a second application in this process would find the names taken, and count nothing.
    requests = CollectorRegistry()
    exporter = _Exporter(app, defaults_prefix="mds", group_by=endpoint, buckets=_BUCKETS, registry=requests)
    # A method is any word that a client makes up. Such a request is answered 405, and not counted.
    uncounted: Callable[[], None] = exporter.do_not_track()(lambda: None)

    @app.before_request
    def count_known_methods() -> None:
        if request.method not in _METHODS:
            uncounted()


def endpoint(request: Request) -> str:
    """What a request's metrics are grouped by; the label has this function's name."""
    return str(request.url_rule or "none")


class _Exporter(PrometheusMetrics):
    def generate_metrics(self, accept_header: str | None = None, names: Sequence[str] | None = None) -> tuple[str, str]:
        """The text and its content type.

        Instead of the exporter's own, which with several processes fails for `?name[]=` (0.23), and with
        prometheus_client (0.26) for an Accept header whose version is no number.
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
