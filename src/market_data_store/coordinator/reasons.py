"""Why a broker took or answered nothing, in the words of whoever knows: the server, the system, the driver."""

from __future__ import annotations

from market_data_store.connections.names import causes, refused_for_number
from market_data_store.coordinator.write_probe import first_line, refusal_in


def reason_of(error: BaseException) -> str:
    """Return the reason in one line: `Connection refused`, `OOM command not allowed ...`, and not just a class.

    Drivers wrap the errors of others, and not all of them keep the text; the innermost that has one knows best.
    """
    found = refused_for_number(error) or refusal_in(error) or _text(error)
    # kombu's names of keys have control characters.
    return "".join(c if c.isprintable() else " " for c in found).rstrip(".")


def _text(error: BaseException) -> str:
    for cause in causes(error):
        # RabbitMQ's `reply_text`; the text of an OSError; else whatever the error says.
        text = getattr(cause, "reply_text", None) or getattr(cause, "strerror", None) or str(cause)
        if text and text != "None":
            return first_line(str(text))
    return type(error).__name__
