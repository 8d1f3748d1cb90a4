"""Guards the admin endpoints: requires the admin's bearer token, and logs each request."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict
from werkzeug.exceptions import RequestEntityTooLarge

from market_data_store.config import Settings
from market_data_store.local.passwords import passwords_in
from market_data_store.service.tokens import Tokens, Verdict

logger = logging.getLogger(__name__)

#: The longest body of a request. The longest that is meant, 10,000 ids, has 200 KB.
MAX_BODY_BYTES = 1024 * 1024
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


def too_many() -> Response:
    """Make the answer to an address that has sent too many wrong tokens."""
    response = problem("too many wrong tokens; try again in a second", 429)
    response.headers["Retry-After"] = "1"
    return response


class Guard:
    """Knows the admin's token: the one of the settings or, in development, the one that the store makes."""

    def __init__(self, settings: Settings) -> None:
        self.tokens = Tokens()
        self.admin_token = settings.own_admin_token
        self._closed = settings.closes_admin
        if not self.admin_token and settings.environment == "development":
            made = passwords_in(settings.home)
            self.admin_token = made.admin_token
            logger.info("ADMIN_TOKEN is not set; the admin endpoints take the one in %s", made.path.absolute())

    def blueprint(self, name: str, tag: str, *, is_open: bool = False) -> APIBlueprint:
        """Make a blueprint whose endpoints require `Authorization: Bearer $ADMIN_TOKEN`, unless it is open.

        They answer 503 while there is no token, 401 without the right one, and 429 after too many wrong ones.
        """
        responses: dict[Any, Any] = {401: Problem, 413: Problem, 422: Problem, 429: Problem, 503: Problem}
        blueprint = APIBlueprint(
            name,
            __name__,
            abp_tags=[Tag(name=tag)],
            abp_security=None if is_open else [{"token": []}],
            abp_responses=responses,
        )
        if not is_open:
            blueprint.before_request(self._refuse)
            blueprint.after_request(_log)
        return blueprint

    def _refuse(self) -> Response | None:
        if not self.admin_token:
            return problem(self._closed, 503)
        verdict = self.tokens.verdict(self.admin_token)
        if verdict is Verdict.RIGHT:
            _read_body()
            return None
        if verdict is Verdict.TOO_MANY:
            return too_many()
        response = problem("the token is missing or wrong; send Authorization: Bearer $ADMIN_TOKEN", 401)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response


def _read_body() -> None:
    """Read the body now, because a reader of JSON would call one that is too long a wrong one."""
    if len(request.get_data()) >= MAX_BODY_BYTES:  # a body in pieces, which is cut off there
        raise RequestEntityTooLarge


def _log(response: Response) -> Response:
    if response.status_code != HTTPStatus.TOO_MANY_REQUESTS:  # of which the first is logged
        logger.info("admin: %s %s from %s: %d", request.method, request.path, request.remote_addr, response.status_code)
    return response
