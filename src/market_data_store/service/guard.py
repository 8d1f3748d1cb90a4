"""Who may use the admin endpoints (by bearer token, each request a line in the log)."""

from __future__ import annotations

import hmac
import logging
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict

from market_data_store.config import Settings

logger = logging.getLogger(__name__)

#: What is said by whoever did not choose a token; taken for one in development alone.
_DEFAULT_TOKEN = "changeme"  # noqa: S105  # no secret, which is the point
#: flask.typing's own cannot be resolved at run time, as flask-openapi3 does.
Answer = Response | dict[str, Any] | tuple[dict[str, Any], int]


class Problem(BaseModel):
    """What is wrong, in one line."""

    error: str


class Body(BaseModel):
    """A request's body: no field that is not known."""

    model_config = ConfigDict(extra="forbid", strict=True)


def problem(error: str, status: int) -> Response:
    """An answer that says what is wrong."""
    response = jsonify(error=error)
    response.status_code = status
    return response


def guarded(name: str, settings: Settings, tag: str) -> APIBlueprint:
    """A blueprint whose endpoints need `Authorization: Bearer $ADMIN_TOKEN`."""
    responses: dict[Any, Any] = {401: Problem, 422: Problem, 503: Problem}
    blueprint = APIBlueprint(
        name, __name__, abp_tags=[Tag(name=tag)], abp_security=[{"token": []}], abp_responses=responses
    )

    def refuse() -> Response | None:
        token = settings.admin_token
        if settings.environment == "development":
            token = token or _DEFAULT_TOKEN
        elif token in ("", _DEFAULT_TOKEN):
            state = "not set" if not token else f"{_DEFAULT_TOKEN!r}"
            return problem(f"ADMIN_TOKEN is {state}: the admin endpoints are closed; set it to a secret", 503)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
            return None
        response = problem("the token is missing or wrong; send Authorization: Bearer $ADMIN_TOKEN", 401)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def log(response: Response) -> Response:
        logger.info("admin: %s %s from %s: %d", request.method, request.path, request.remote_addr, response.status_code)
        return response

    blueprint.before_request(refuse)
    blueprint.after_request(log)
    return blueprint
