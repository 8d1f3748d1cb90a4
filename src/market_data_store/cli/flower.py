"""`mds flower`: runs Flower with the store's settings."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from urllib.parse import unquote, urlsplit, urlunsplit

import click

from market_data_store import config
from market_data_store.app import app
from market_data_store.cli.terminal import PORT
from market_data_store.config import Settings, checks
from market_data_store.config.starting import begin_log
from market_data_store.connections.addresses import is_loopback
from market_data_store.coordinator.cluster import refuse_cluster
from market_data_store.errors import ConfigurationError
from market_data_store.local.passwords import passwords_in

#: Flower's own default port.
FLOWER_PORT = 5555
#: How Python runs Flower, which needs `flower_environment`. `celery -A` would look into the working directory first, so
#: that a `celery.py` or `redis.py` of another user ran; `-P` is for Python itself.
_FLOWER = ("-P", "-m", "market_data_store.cli.flower")


@click.command("flower")
@click.option("--port", type=PORT, help="Port to listen on.  [default: PORT, else 5555]")
def command(port: int | None) -> None:
    """Run Flower, which shows the workers, the queue, and each task with its dataset and rows.

    It requires FLOWER_BASIC_AUTH (user:password, of at least 16 characters). With MDS_ENV=development it makes one,
    which is in .mds/passwords. Flower's own settings are environment variables too: FLOWER_URL_PREFIX, ...

    \b
    FLOWER_BASIC_AUTH=me:$(openssl rand -hex 16) mds flower --port 5555
    """
    settings = config.settings()
    settings.require_broker_url()
    refuse_cluster(app)
    environment = flower_environment(settings, port=port)
    os.execve(sys.executable, [sys.executable, *_FLOWER], environment)  # noqa: S606


def flower_environment(settings: Settings, *, port: int | None = None) -> dict[str, str]:
    """Return this process's environment with Flower's settings.

    They are variables, because everybody can read a command line. Raises `ConfigurationError` in production if there is
    no password of the user's own. In development on this machine the store makes one, and then Flower changes nothing.
    """
    environment = dict(os.environ)
    # Overwrite it: Kubernetes sets FLOWER_PORT to tcp://... for a service named `flower`, and Flower reads it.
    environment["FLOWER_PORT"] = str(port or settings.port or FLOWER_PORT)
    # Tornado's socket for :: takes IPv6 only; for no address it has one for each family.
    environment["FLOWER_ADDRESS"] = "" if settings.bind_host == "::" else settings.bind_host
    environment.setdefault("FLOWER_MAX_TASKS", "10000")  # about 20 MB; Flower's default is ten times as many
    environment.setdefault("FLOWER_TASKS_COLUMNS", "name,args,state,result,received,runtime,worker,uuid")
    if settings.rabbitmq_management_url:
        environment.setdefault("FLOWER_BROKER_API", _broker_api(settings))
    pairs = settings.flower_basic_auth
    is_open_to_others = settings.environment == "production" or not is_loopback(settings.bind_host)
    if is_open_to_others and not checks.are_own_logins(pairs):
        raise ConfigurationError(
            "FLOWER_BASIC_AUTH is not user:password with a password of your own of at least "
            f"{checks.LEAST_SECRET} characters; set it (in ASCII), or set MDS_ENV=development to run Flower "
            "on this machine with a password that it makes"
        )
    if not checks.are_own_logins(pairs):
        pairs = passwords_in(settings.home).flower
        environment.setdefault("FLOWER_READ_ONLY", "true")
    environment["FLOWER_BASIC_AUTH"] = pairs  # the setting may come from `.env`
    return environment


def _broker_api(settings: Settings) -> str:
    """Return RabbitMQ's HTTP API as Flower needs it.

    Tornado sends user and password as they stand in the URL, percent-encoded or not. Without them Flower takes the
    broker's, which it decodes.
    """
    api = urlsplit(settings.rabbitmq_management_url)
    who, at, host = api.netloc.rpartition("@")
    if who == urlsplit(settings.broker_url).netloc.rpartition("@")[0]:
        who = at = ""
    elif not set("/?#[]") & set(unquote(who)):
        who = unquote(who)
    return urlunsplit(api._replace(netloc=who + at + host, path=api.path.rstrip("/") + "/api/"))


def _run() -> None:
    """Run Flower, and end with it.

    Python would wait for Flower's threads first, which ask a broker that is away for a minute and more.
    """
    status = 0
    begin_log("flower")
    logging.getLogger("flower.command").addFilter(_says_something)
    try:
        app.start(["flower", f"--logging={config.settings().log_level}"])
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        status = ended.code or 0
    atexit._run_exitfuncs()  # Flower saves there what it has seen
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _says_something(record: logging.LogRecord) -> bool:
    """Whether it is not the list of tasks, which are always the same."""
    return not str(record.msg).startswith("Registered tasks")


if __name__ == "__main__":
    _run()
