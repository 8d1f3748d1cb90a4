"""Guards the admin endpoints: requires a bearer token, and logs each request."""

from __future__ import annotations

import hmac
import logging
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict

from market_data_store.config import Settings

logger = logging.getLogger(__name__)

#: The placeholder of an unset token, accepted only in development.
_DEFAULT_TOKEN = "changeme"  # noqa: S105  # not a secret, which is the point
#: What an endpoint returns. flask-openapi3 resolves annotations at run time, which fails for those in flask.typing.
Answer = Response | dict[str, Any] | tuple[dict[str, Any], int]


class Problem(BaseModel):
    """What is wrong, in one line."""

    error: str


class Body(BaseModel):
    """A request's body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


def problem(error: str, status: int) -> Response:
    """Make an answer that says what is wrong."""
    response = jsonify(error=error)
    response.status_code = status
    return response


def guarded(name: str, settings: Settings, tag: str) -> APIBlueprint:
    """Make a blueprint whose endpoints require `Authorization: Bearer $ADMIN_TOKEN`.

    They answer 503 while no token is chosen outside of development, and 401 without the right one.
    """
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
