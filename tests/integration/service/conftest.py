"""A web process for each module; a module that needs another one defines its own `web`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.sharing import Corner
from support.web import Web, serving


@pytest.fixture(scope="module")
def running_web(
    corner_at: Callable[[str], Corner], shared_redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Web]:
    servers = {"DATABASE_URL": corner_at(shared_redis_url).database_url, "BROKER_URL": shared_redis_url}
    with serving(tmp_path_factory.mktemp("web"), **servers) as running:
        yield running


@pytest.fixture
def web(running_web: Web, redis_url: str, database_url: str) -> Web:
    """The module's web process, with nothing in its database and its broker."""
    return running_web
