"""`mds flower`: runs Flower with the store's settings."""

from __future__ import annotations

import os
import re
import sys

import click

from market_data_store import config
from market_data_store.cli.terminal import PORT
from market_data_store.config import Settings
from market_data_store.errors import ConfigurationError

#: Flower's own default port.
FLOWER_PORT = 5555
#: The arguments of `python -m` for Flower, which needs `flower_environment`.
_FLOWER = ("celery", "-A", "market_data_store.app", "flower")
# Placeholders that examples show in place of a password.
_PLACEHOLDER = re.compile(r"|password|secret|change[-_ ]?(me|it)|<.*>", re.IGNORECASE)


@click.command("flower")
@click.option("--port", type=PORT, help="Port to listen on.  [default: PORT, else 5555]")
def command(port: int | None) -> None:
    """Run Flower, which shows the workers, the queue, and each task with its dataset and rows.

    It requires FLOWER_BASIC_AUTH (user:password) unless MDS_ENV=development. Flower's own settings are environment
    variables too: FLOWER_URL_PREFIX, FLOWER_MAX_TASKS, ...

    \b
    FLOWER_BASIC_AUTH=me:a-long-password mds flower --port 5555
    """
    settings = config.settings()
    settings.require_broker_url()
    environment = flower_environment(settings, port=port)
    os.execve(sys.executable, [sys.executable, "-m", *_FLOWER], environment)  # noqa: S606


def flower_environment(settings: Settings, *, port: int | None = None) -> dict[str, str]:
    """Return this process's environment with Flower's settings.

    They are variables, because everybody can read a command line. Raises `ConfigurationError` if Flower would be open
    to everybody in production. In development its page and its API, on this machine, need no password, and cannot
    change anything.
    """
    environment = dict(os.environ)
    # Overwrite it: Kubernetes sets FLOWER_PORT to tcp://... for a service named `flower`, and Flower reads it.
    environment["FLOWER_PORT"] = str(port or settings.port or FLOWER_PORT)
    environment["FLOWER_ADDRESS"] = settings.bind_host
    environment.setdefault("FLOWER_MAX_TASKS", "10000")  # about 20 MB; Flower's default is ten times as many
    environment.setdefault("FLOWER_TASKS_COLUMNS", "name,args,state,result,received,runtime,worker,uuid")
    if settings.rabbitmq_management_url:
        environment.setdefault("FLOWER_BROKER_API", settings.rabbitmq_management_url.rstrip("/") + "/api/")
    pairs = settings.flower_basic_auth
    if settings.environment == "production" and not all(map(_is_own, pairs.split(","))):
        raise ConfigurationError(
            "FLOWER_BASIC_AUTH is not user:password with a password of your own; set it (in ASCII), "
            "or set MDS_ENV=development to run Flower without a password"
        )
    if pairs:
        environment["FLOWER_BASIC_AUTH"] = pairs  # the setting may come from `.env`
    else:
        environment.pop("FLOWER_BASIC_AUTH", None)  # an empty value lets nobody in
        environment["FLOWER_UNAUTHENTICATED_API"] = "true"
        # Read-only, because any page that is open in a browser on this machine can call the API.
        environment.setdefault("FLOWER_READ_ONLY", "true")
    return environment


def _is_own(pair: str) -> bool:
    user, _, password = pair.partition(":")
    # Flower compares with hmac.compare_digest, which accepts only ASCII.
    return bool(user) and pair.isascii() and not _PLACEHOLDER.fullmatch(password)
