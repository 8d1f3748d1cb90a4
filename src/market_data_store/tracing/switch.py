"""Whether this process traces. Without OpenTelemetry's variables none of its packages is imported."""

from __future__ import annotations

import logging
import threading
from functools import cache
from typing import TYPE_CHECKING

from market_data_store.config.reading import Traces, traces
from market_data_store.errors import ConfigurationError

if TYPE_CHECKING:
    from market_data_store.tracing.spans import Spans

logger = logging.getLogger(__name__)

#: What the extra `traces` has.
_PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-instrumentation-celery")


class _Switch:
    lock = threading.Lock()
    is_decided = False
    spans: Spans | None = None


def spans() -> Spans | None:
    """Return what makes this process's spans; None while it does not trace."""
    return _Switch.spans


def begin(process: str) -> None:
    """Trace from here on if the environment asks for it. `process` is its service's name unless OTEL_SERVICE_NAME is.

    Starts a thread, so call it in the process that traces, not in its parent. Idempotent. What keeps it from tracing is
    logged in one line: a producer or a worker works all the same.
    """
    with _Switch.lock:
        if not _Switch.is_decided:
            _Switch.is_decided = True
            _Switch.spans = _begun(process)


@cache
def header_names() -> frozenset[str]:
    """Return the headers of a message that say to which trace it belongs; none while traces are off. Starts nothing."""
    if _asked_for() is None:
        return frozenset()
    try:
        from opentelemetry.propagate import get_global_textmap
    except ImportError:  # `begin` says so
        return frozenset()
    return frozenset(get_global_textmap().fields) - {"baggage"}


def _asked_for() -> Traces | None:
    try:
        return traces()
    except ConfigurationError:  # `begin` says so
        return None


def _begun(process: str) -> Spans | None:
    try:
        asked = traces()
        if asked is None:
            return None
        from market_data_store.tracing.exporting import provider_for
        from market_data_store.tracing.spans import Spans

        return Spans(provider_for(asked, process))
    except ConfigurationError as error:
        logger.warning("%s; nothing is traced", error)
    except ImportError as error:
        logger.warning(
            "Traces are asked for, and a package is missing (%s); nothing is traced. Install what the extra "
            "`traces` has: pip install %s",
            error.name,
            " ".join(_PACKAGES),
        )
    return None
