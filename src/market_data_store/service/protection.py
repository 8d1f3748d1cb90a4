"""What holds for every request: by which name it may call, the token for reading, the body's length, and headers."""

from __future__ import annotations

import logging
from ipaddress import ip_address

from flask import Flask, Response, request

from market_data_store.config import Settings
from market_data_store.service.guard import MAX_BODY_BYTES, Guard, problem, too_many
from market_data_store.service.tokens import Verdict

logger = logging.getLogger(__name__)

#: It needs no token, so that a platform can ask it.
_LIVENESS = "/healthz"
#: By these names a browser on this machine calls.
_OWN_NAMES = ("localhost", ".localhost")
#: For answers that are not a page; the page has its own.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def protect(app: Flask, settings: Settings, guard: Guard) -> None:
    """Protect all of an application's answers; must be called before other functions look at a request."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    names = _allowed_names(settings)

    @app.before_request
    def refuse_a_foreign_name() -> Response | None:
        # A page whose name leads to this machine a moment after it was loaded (DNS rebinding) has that name here.
        if names is None or _may_call(request.environ.get("HTTP_HOST", ""), names):
            return None
        return problem("this name is not in MDS_ALLOWED_HOSTS; call 127.0.0.1 or localhost, or add the name", 421)

    if settings.status_token:

        @app.before_request
        def ask_for_the_token() -> Response | None:
            if request.path == _LIVENESS:
                return None
            verdict = guard.tokens.verdict(settings.status_token, guard.admin_token, or_password=True)
            if verdict is Verdict.RIGHT:
                return None
            if verdict is Verdict.TOO_MANY:
                return too_many()
            response = problem("the token is missing or wrong; send Authorization: Bearer $MDS_STATUS_TOKEN", 401)
            # A browser asks for a name, which may be any, and a password, which is the token.
            response.headers["WWW-Authenticate"] = 'Basic realm="market-data-store", charset="UTF-8"'
            return response

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _allowed_names(settings: Settings) -> tuple[str, ...] | None:
    """Return the names by which web may be called; None if that is any."""
    if "*" in settings.allowed_hosts:
        return None
    if settings.allowed_hosts:
        return (*_OWN_NAMES, *settings.allowed_hosts)
    return (*_OWN_NAMES, settings.host.lower()) if settings.environment == "development" else None


def _may_call(host: str, names: tuple[str, ...]) -> bool:
    """Return whether the header Host has one of these names, or an address: a page that has one comes from there.

    `.example.com` is every name that ends so. What sends no Host is not a browser.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    name = name.lower().rstrip(".")
    if not name or _is_address(name):
        return True
    return any(name == allowed or (allowed.startswith(".") and name.endswith(allowed)) for allowed in names)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
