"""Settings: the only module that reads the environment, and that finds the files installed with the package.

Variables can also be in a `.env` file of the working directory. While `mds up` runs, `.mds/env` names its servers, so
that other commands in that directory need no variables. A wrong value raises `ConfigurationError` with one line.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from market_data_store.errors import ConfigurationError


def _postgres_url(value: Any) -> Any:
    """Accept the spellings of a PaaS and of SQLAlchemy for libpq's `postgresql://`."""
    if not isinstance(value, str) or not value:
        return value
    scheme, _, rest = value.partition("://")
    if scheme not in ("postgres", "postgresql", "postgresql+psycopg") or not rest:
        raise ValueError("is not a postgresql:// URL")
    return f"postgresql://{rest}"


def postgres_url(url: str) -> str:
    """The URL as libpq spells it; raises `ConfigurationError`."""
    try:
        return str(_postgres_url(url))
    except ValueError as error:
        raise ConfigurationError(f"{without_password(url)} {error}") from None


def _broker_url(value: Any) -> Any:
    if isinstance(value, str) and value:
        scheme = value.partition("://")[0]
        if scheme not in ("redis", "rediss", "sentinel", "amqp", "amqps", "pyamqp"):
            raise ValueError("is not a redis://, rediss://, sentinel://, amqp:// or amqps:// URL")
    return value


def _verified(url: str, cert_reqs: str) -> str:
    """The URL of a Redis with TLS, with what is required of the server's certificate.

    For a URL without it, kombu requires nothing and Celery's result backend refuses to start; redis-py knows only two
    values. So each URL says it, in a spelling that all three read.
    """
    address, _, query = url.partition("?")
    if not address.startswith("rediss://"):
        return url
    options = dict(parse_qsl(query))
    given = options.get("ssl_cert_reqs", cert_reqs).lower().removeprefix("cert_")
    if given not in ("required", "none"):
        raise ValueError("set ssl_cert_reqs to required or none")
    return f"{address}?{urlencode({**options, 'ssl_cert_reqs': given})}"


def _days_by_dataset(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return {
            name.strip(): int(days) for name, days in (pair.split("=") for pair in value.split(",") if pair.strip())
        }
    except ValueError:
        raise ValueError("write dataset=days, such as ticks=30,quotes=7") from None


#: Variables without effect, and what to know of each.
_REMOVED = {
    "MDS_STOCK_REDIS_TRANSPORT": "was removed in 0.5 and has no effect; delete it (the store has its own transport)",
}

PostgresUrl = Annotated[str, BeforeValidator(_postgres_url)]
BrokerUrl = Annotated[str, BeforeValidator(_broker_url)]
Days = Annotated[int, Field(ge=1, le=36_500)]


def _env(*names: str, default: Any, **constraints: Any) -> Any:
    return Field(default=default, validation_alias=AliasChoices(*names), **constraints)


class Settings(BaseSettings):
    """Every setting with its environment variable, unit and default."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    #: The database that rows are written to. `postgres://` is accepted.
    database_url: PostgresUrl = _env("DATABASE_URL", default="")
    #: The URL for migrations; `DATABASE_URL` when empty.
    admin_database_url: PostgresUrl = _env("ADMIN_DATABASE_URL", default="")
    #: What a rediss:// server's certificate must be if the URL has no `ssl_cert_reqs`: issued by a known authority for
    #: this host (required), or anything (none).
    redis_ssl_cert_reqs: Literal["required", "none"] = _env("MDS_REDIS_SSL_CERT_REQS", default="required")
    #: The broker, where messages wait: Redis/Valkey or RabbitMQ.
    broker_url: BrokerUrl = _env("BROKER_URL", "CLOUDAMQP_URL", "REDIS_URL", default="")
    #: The Redis for feedback, and for results if the broker is not Redis.
    redis_url: BrokerUrl = _env("REDIS_URL", default="")
    #: Path of another alembic.ini; the package's when empty.
    alembic_ini: str = _env("ALEMBIC_INI", default="")

    #: A worker merges waiting messages into one write of about this many rows ...
    batch_rows: int = _env("MDS_BATCH_ROWS", default=5_000, ge=1, le=1_000_000)
    #: ... or writes what has arrived after this many seconds, whichever comes first.
    flush_interval_s: float = _env("MDS_FLUSH_INTERVAL_S", default=0.05, ge=0.0, le=60.0)
    #: The most unacknowledged messages a pool process; no more than this can be merged into one write.
    prefetch_messages: int = _env("MDS_PREFETCH_MESSAGES", default=128, ge=1, le=10_000)
    #: A larger message is not decoded, but kept as a dead letter.
    max_message_bytes: int = _env("MDS_MAX_MESSAGE_BYTES", default=16 * 1024 * 1024, ge=1024)
    #: A message is kept as a dead letter after so many turns that took a process down or exceeded a time limit.
    max_deliveries: int = _env("MDS_MAX_DELIVERIES", default=3, ge=2)
    #: How many messages may wait for datasets whose tables take no row, before the level is hard.
    held_capacity: int = _env("MDS_HELD_CAPACITY", default=100_000, ge=1)
    #: A worker tries a message of each such dataset at growing intervals of at most this.
    held_probe_s: float = _env("MDS_HELD_PROBE_S", default=30.0, gt=0.0, le=3_600.0)
    #: How long a worker retries while Postgres is unreachable, before it gives its messages back to the broker. Below
    #: the task's soft time limit of 60 s.
    retry_deadline_s: float = _env("MDS_RETRY_DEADLINE_S", default=30.0, ge=0.0, le=50.0)
    #: A worker that has been deaf or stuck for this many seconds ends with an exit code other than 0; 0 for never.
    exit_when_stalled_s: float = _env("MDS_EXIT_WHEN_STALLED", default=0.0, ge=0.0)
    #: Redis only: a message that was taken and not acknowledged is redelivered after this many seconds.
    visibility_timeout_s: int = _env("MDS_VISIBILITY_TIMEOUT_S", default=600, ge=1)
    #: How long the results of tasks are kept.
    result_expires_s: int = _env("MDS_RESULT_EXPIRES_S", default=3_600, ge=1)
    #: Depth at which the queue counts as full.
    queue_capacity: int = _env("MDS_QUEUE_CAPACITY", default=10_000, ge=1)
    #: The shares of the capacity at which the level changes, see `coordinator.watermarks`.
    soft_above: float = _env("MDS_SOFT_ABOVE", default=0.5)
    hard_from: float = _env("MDS_HARD_FROM", default=0.8)
    hard_until: float = _env("MDS_HARD_UNTIL", default=0.65)
    ok_at: float = _env("MDS_OK_AT", default=0.4)
    #: The monitor reads the queue at this interval ...
    monitor_interval_s: float = _env("MDS_MONITOR_INTERVAL_S", default=0.5, gt=0.0, le=60.0)
    #: ... and repeats an unchanged level at this one.
    feedback_heartbeat_s: float = _env("MDS_FEEDBACK_HEARTBEAT_S", default=10.0, gt=0.0)
    #: RabbitMQ's HTTP API, for the number of unacknowledged messages: http://user:password@host:15672.
    rabbitmq_management_url: str = _env("MDS_RABBITMQ_MANAGEMENT_URL", default="")
    #: The namespace and the schema track of the neighbours' event bus, and whether events are published to it.
    namespace: str = _env("MD_NAMESPACE", default="mdp")
    schema_track: Literal["v1", "v2"] = _env("SCHEMA_TRACK", default="v1")
    pulse_enabled: bool = _env("PULSE_ENABLED", default=True)
    #: Feedback by HTTP to an endpoint of the user's.
    http_broadcast: bool = _env("MDS_FB_ENABLE_HTTP_BROADCAST", default=False)
    http_endpoint: str = _env("MDS_FB_HTTP_ENDPOINT", default="")
    http_timeout_s: float = _env("MDS_FB_HTTP_TIMEOUT", default=2.5, gt=0.0)
    http_max_retries: int = _env("MDS_FB_HTTP_MAX_RETRIES", default=3, ge=0)
    http_backoff_s: float = _env("MDS_FB_HTTP_BACKOFF", default=0.5, ge=0.0)
    #: `development` lets Flower and the admin endpoints work without a secret.
    environment: Literal["development", "production"] = _env("MDS_ENV", default="production")
    #: The bearer token of the admin endpoints.
    admin_token: str = _env("ADMIN_TOKEN", default="", repr=False)
    #: Flower's user and password, `user:password`.
    flower_basic_auth: str = _env("FLOWER_BASIC_AUTH", default="", repr=False)
    #: The port that a PaaS assigns to a process, and the web process's port without one.
    port: int = _env("PORT", default=0, ge=0, le=65_535)
    app_port: int = _env("APP_PORT", default=8081, ge=1, le=65_535)
    #: The address of web and Flower; when empty 0.0.0.0 if PORT is set (unless in development), otherwise 127.0.0.1.
    host: str = _env("MDS_HOST", default="")
    #: The ports on which a worker and the monitor serve their metrics; 0 for none.
    worker_metrics_port: int = _env("MDS_WORKER_METRICS_PORT", default=0, ge=0, le=65_535)
    monitor_metrics_port: int = _env("MDS_MONITOR_METRICS_PORT", default=0, ge=0, le=65_535)
    #: How many days a dataset's rows are kept, `ticks=30,quotes=7`; those of other datasets are kept for ever.
    retention_days: Annotated[dict[str, Days], NoDecode, BeforeValidator(_days_by_dataset)] = _env(
        "MDS_RETENTION_DAYS", default={}
    )
    #: Whether rows may have times before 1900 and after 2100, which mostly are mistakes.
    any_year: bool = _env("MDS_ANY_YEAR", default=False)
    #: The directory for the data of `mds up`'s servers and for the spools of `AsyncStoreClient`.
    home: Path = _env("MDS_HOME", default=Path(".mds"))

    @field_validator("broker_url", "redis_url", mode="after")
    @classmethod
    def _verify_tls(cls, url: str, info: ValidationInfo) -> str:
        return _verified(url, info.data.get("redis_ssl_cert_reqs", "required"))

    def require_database_url(self) -> str:
        """DATABASE_URL; raises a `ConfigurationError` that says how to set it."""
        return _required(self.database_url, "DATABASE_URL", "postgresql://user:password@host/database")

    def require_broker_url(self) -> str:
        """BROKER_URL; raises a `ConfigurationError` that says how to set it."""
        return _required(self.broker_url, "BROKER_URL", "redis://host:6379/0 or amqp://user:password@host//")

    @property
    def feedback_url(self) -> str:
        """The Redis that feedback is published to: REDIS_URL, or the broker if it is Redis, or empty."""
        if self.redis_url:
            return self.redis_url
        return self.broker_url if self.broker_url.startswith("redis") else ""

    @property
    def bind_host(self) -> str:
        """The address of web and Flower."""
        open_to_all = self.port and self.environment == "production"  # honcho gives PORT too
        return self.host or ("0.0.0.0" if open_to_all else "127.0.0.1")  # noqa: S104  # nosec B104  # as a PaaS wants it

    @property
    def broker_tls(self) -> dict[str, str]:
        """The TLS options in the URL of a Redis (`ssl_cert_reqs`, `ssl_ca_certs`, ...); empty without TLS."""
        options = dict(parse_qsl(urlsplit(self.broker_url).query))
        is_tls = self.broker_url.startswith("rediss")
        return {name: value for name, value in options.items() if is_tls and name.startswith("ssl_")}

    @property
    def migration_url(self) -> str:
        """The URL for migrations: ADMIN_DATABASE_URL, or DATABASE_URL."""
        return self.admin_database_url or self.require_database_url()


def _required(value: str, name: str, example: str) -> str:
    if not value:
        raise ConfigurationError(
            f"{name} is not set; set it to {example}, or run `mds up`, which starts its own servers"
        )
    return value


@cache
def settings() -> Settings:
    """The settings of this process, read once; raises `ConfigurationError` that names each wrong variable."""
    return _read(settings_without_local_servers().home / "env", ".env")


def settings_without_local_servers() -> Settings:
    """The settings without the servers of a running `mds up`, which itself decides by these."""
    return _read(".env")


def _read(*files: str | Path) -> Settings:
    try:
        found = Settings(_env_file=files)  # type: ignore[call-arg]  # pydantic-settings takes it beside the fields
        _warn_of_removed(files)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_wrong_value(e) for e in error.errors())) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f".env: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return found


def _warn_of_removed(files: Iterable[str | Path]) -> None:
    names = [*os.environ, *chain.from_iterable(map(dotenv_values, files))]
    given = {name.upper() for name in names}
    for name in given & _REMOVED.keys():
        # Python shows the first warning of this category by default.
        warnings.warn(f"{name} {_REMOVED[name]}", FutureWarning, stacklevel=1)


def _wrong_value(error: Any) -> str:
    # Without the value of a URL: it may contain a password.
    name = str(error["loc"][0])
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices) and alias.choices[0] == name:
            # pydantic names the first alias; name the one that is set.
            names = [str(choice) for choice in alias.choices]
            name = next((n for n in names if os.environ.get(n) == error["input"]), name)
    value = "" if name.endswith("URL") else f"={error['input']!r}"
    reason = str(error["msg"]).removeprefix("Value error, ")
    return f"{name}{value}: {reason[:1].lower()}{reason[1:]}"


def without_password(url: str) -> str:
    """The URL as it may be shown to people: user and password replaced, without its query, which may hold secrets."""
    scheme, separator, rest = url.partition("://")
    if not separator:  # libpq's keywords, say
        return "***"
    # Split at the last @, not by the rules for URLs: a password may contain characters that should have been escaped.
    user, at, host = rest.rpartition("@")
    return f"{scheme}://{'***@' if at else ''}{re.split('[?#]', host)[0]}" if user or not at else f"{scheme}://***"


def resource(name: str) -> Path:
    """Path of a file that is installed with the package: in it, or at a checkout's top level (alembic.ini, ...)."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.exists() else package.parents[1] / name
