"""The settings: every one with its environment variable, unit, default and bounds. `reading` takes their values."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import AliasChoices, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from market_data_store.config import checks, feeds
from market_data_store.connections.addresses import accepted_host
from market_data_store.connections.sentinel import completed
from market_data_store.connections.urls import (
    accepted_broker_url,
    accepted_http_url,
    accepted_management_url,
    accepted_postgres_url,
    accepted_redis_url,
    is_redis,
    scheme_of,
)
from market_data_store.errors import ConfigurationError
from market_data_store.protocol import BACKFILL_QUEUE, QUEUE

#: The variables from which `Settings` is being made.
GIVEN: ContextVar[Mapping[str, str]] = ContextVar("given", default=MappingProxyType({}))

PostgresUrl = Annotated[str, BeforeValidator(accepted_postgres_url)]
BrokerUrl = Annotated[str, BeforeValidator(accepted_broker_url)]
ManagementUrl = Annotated[str, BeforeValidator(accepted_management_url)]
RedisUrl = Annotated[str, BeforeValidator(accepted_redis_url)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
HttpUrl = Annotated[str, BeforeValidator(accepted_http_url)]
StatusToken = Annotated[str, BeforeValidator(checks.own_token)]
HostNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(checks.host_names)]
Days = Annotated[int, Field(ge=1, le=36_500)]
ContractByDataset = Annotated[
    dict[str, Literal["keep", "reject", "add"]], NoDecode, BeforeValidator(checks.contract_by_dataset)
]
DaysByDataset = Annotated[dict[str, Days], NoDecode, BeforeValidator(checks.days_by_dataset)]
Limits = Annotated[tuple[feeds.Limit, ...], NoDecode, BeforeValidator(feeds.limits)]
SymbolGroups = Annotated[tuple[feeds.SymbolGroup, ...], NoDecode, BeforeValidator(feeds.groups)]
Spans = Annotated[dict[str, Literal["day", "week", "month", "year"]], NoDecode, BeforeValidator(checks.span_by_dataset)]
Password = Annotated[str, BeforeValidator(checks.password)]
Files = Annotated[tuple[str, ...], NoDecode, BeforeValidator(checks.files)]
Directory = Annotated[Path, BeforeValidator(checks.directory)]


def _env(*names: str, default: Any, **constraints: Any) -> Any:
    return Field(default=default, validation_alias=AliasChoices(*names), **constraints)


class _Given(PydanticBaseSettingsSource):
    """The variables, as `reading` has found them: pydantic's own source would read files of anybody's."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        return {name: GIVEN.get()[name] for name in names() if GIVEN.get().get(name)}


class Settings(BaseSettings):
    """Every setting with its environment variable, unit and default."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    #: The database that rows are written to. `postgres://` is accepted.
    database_url: PostgresUrl = _env("DATABASE_URL", default="", repr=False)
    #: The URL for migrations; `DATABASE_URL` when empty.
    admin_database_url: PostgresUrl = _env("ADMIN_DATABASE_URL", default="", repr=False)
    #: What a rediss:// server's certificate must be if the URL has no `ssl_cert_reqs`: issued by a known authority for
    #: this host (required), or anything (none).
    redis_ssl_cert_reqs: Literal["required", "none"] = _env("MDS_REDIS_SSL_CERT_REQS", default="required")
    #: The name under which the sentinels of a sentinel:// URL know the master, and their own password.
    sentinel_master: str = _env("MDS_SENTINEL_MASTER", default="", pattern=r"^\S*$")
    sentinel_password: Password = _env("MDS_SENTINEL_PASSWORD", default="", repr=False)
    #: The broker, where messages wait: Redis/Valkey or RabbitMQ.
    broker_url: BrokerUrl = _env("BROKER_URL", "CLOUDAMQP_URL", "REDIS_TLS_URL", "REDIS_URL", default="", repr=False)
    #: The Redis for feedback, and for results if the broker is not Redis. A platform that sets both means one server,
    #: and the traffic to it should be encrypted.
    redis_url: RedisUrl = _env("REDIS_TLS_URL", "REDIS_URL", default="", repr=False)
    #: Path of another alembic.ini; the package's when empty.
    alembic_ini: Annotated[str, BeforeValidator(checks.file)] = _env("ALEMBIC_INI", default="")

    #: A worker merges waiting messages into one write of about this many rows ...
    batch_rows: int = _env("MDS_BATCH_ROWS", default=5_000, ge=1, le=1_000_000)
    #: ... and, while it writes one, waits at most this many seconds for others to fill the next.
    flush_interval_s: float = _env("MDS_FLUSH_INTERVAL_S", default=0.05, ge=0.0, le=60.0)
    #: The most unacknowledged messages a pool process, of each queue; no more than this can be merged into one write.
    prefetch_messages: int = _env("MDS_PREFETCH_MESSAGES", default=128, ge=1, le=10_000)
    #: A larger message is not decoded, but kept as a dead letter.
    max_message_bytes: int = _env("MDS_MAX_MESSAGE_BYTES", default=16 * 1024 * 1024, ge=1024)
    #: How much memory a pool process may reserve beyond what it has at its start; 0 for no limit. Arrow reserves 1 GiB
    #: at its first allocation, whatever it needs.
    pool_memory_bytes: int = _env("MDS_POOL_MEMORY_BYTES", default=4 * 1024**3, ge=0)
    #: Above this size of all dead letters, only the reasons of further ones are kept; 0 for no limit.
    letters_quota_bytes: int = _env("MDS_LETTERS_QUOTA_BYTES", default=10 * 1024**3, ge=0)
    #: What the database may take, if a service sets a limit; 0 for none. The level is hard before it is reached.
    database_quota_bytes: int = _env("MDS_DATABASE_QUOTA_BYTES", default=0, ge=0)
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
    #: Whether workers take all of Celery's control commands, such as shutdown and revoke; otherwise questions only.
    remote_control: bool = _env("MDS_REMOTE_CONTROL", default=False)
    #: Redis only: a message that was taken and not acknowledged is redelivered after this many seconds.
    visibility_timeout_s: int = _env("MDS_VISIBILITY_TIMEOUT_S", default=600, ge=1)
    #: How long the results of tasks are kept.
    result_expires_s: int = _env("MDS_RESULT_EXPIRES_S", default=3_600, ge=1)
    #: Depths at which the queues of live rows and of history count as full.
    queue_capacity: int = _env("MDS_QUEUE_CAPACITY", default=10_000, ge=1)
    backfill_capacity: int = _env("MDS_BACKFILL_CAPACITY", default=10_000, ge=1)
    #: The shares of the capacity at which the level changes, see `coordinator.watermarks`.
    soft_above: Share = _env("MDS_SOFT_ABOVE", default=0.5)
    hard_from: Share = _env("MDS_HARD_FROM", default=0.8)
    hard_until: Share = _env("MDS_HARD_UNTIL", default=0.65)
    ok_at: Share = _env("MDS_OK_AT", default=0.4)
    #: The monitor reads the queue at this interval ...
    monitor_interval_s: float = _env("MDS_MONITOR_INTERVAL_S", default=0.5, gt=0.0, le=60.0)
    #: ... and repeats an unchanged level at this one.
    feedback_heartbeat_s: float = _env("MDS_FEEDBACK_HEARTBEAT_S", default=10.0, gt=0.0)
    #: RabbitMQ's HTTP API, for the number of unacknowledged messages: http://user:password@host:15672.
    rabbitmq_management_url: ManagementUrl = _env("MDS_RABBITMQ_MANAGEMENT_URL", default="", repr=False)
    #: The namespace and the schema track of the neighbours' event bus, and whether events are published to it.
    namespace: str = _env("MD_NAMESPACE", default="mdp", pattern=r"^\S+$")
    schema_track: Literal["v1", "v2"] = _env("SCHEMA_TRACK", default="v1")
    pulse_enabled: bool = _env("PULSE_ENABLED", default=True)
    #: Feedback by HTTP to an endpoint of the user's.
    http_broadcast: bool = _env("MDS_FB_ENABLE_HTTP_BROADCAST", default=False)
    http_endpoint: HttpUrl = _env("MDS_FB_HTTP_ENDPOINT", default="", repr=False)
    http_timeout_s: float = _env("MDS_FB_HTTP_TIMEOUT", default=2.5, gt=0.0)
    http_max_retries: int = _env("MDS_FB_HTTP_MAX_RETRIES", default=3, ge=0)
    http_backoff_s: float = _env("MDS_FB_HTTP_BACKOFF", default=0.5, ge=0.0)
    #: In `development` web and Flower take passwords that the store makes, and answer to names of this machine only.
    environment: Literal["development", "production"] = _env("MDS_ENV", default="production")
    #: The bearer token of the admin endpoints.
    admin_token: Annotated[str, BeforeValidator(checks.token)] = _env("ADMIN_TOKEN", default="", repr=False)
    #: If set, everything but /healthz asks for this token, or for the admin's.
    status_token: StatusToken = _env("MDS_STATUS_TOKEN", default="", repr=False)
    #: Whether the page shows series and their rows without the admin's token.
    open_series: bool = _env("MDS_OPEN_SERIES", default=False)
    #: Where people open Flower: the page links to it.
    flower_url: HttpUrl = _env("MDS_FLOWER_URL", default="", repr=False)
    #: The names by which web may be called; without them any in production, in development those of this machine.
    allowed_hosts: HostNames = _env("MDS_ALLOWED_HOSTS", default=())
    #: Flower's user and password, `user:password`.
    flower_basic_auth: Annotated[str, BeforeValidator(checks.user_and_password)] = _env(
        "FLOWER_BASIC_AUTH", default="", repr=False
    )
    #: The port that a PaaS assigns to a process, and the web process's port without one.
    port: int = _env("PORT", default=0, ge=0, le=65_535)
    app_port: int = _env("APP_PORT", default=8081, ge=1, le=65_535)
    #: The address of web and Flower; when empty 0.0.0.0 if PORT is set (unless in development), otherwise 127.0.0.1.
    host: Annotated[str, BeforeValidator(accepted_host)] = _env("MDS_HOST", default="")
    #: The ports on which a worker and the monitor serve their metrics; 0 for none.
    worker_metrics_port: int = _env("MDS_WORKER_METRICS_PORT", default=0, ge=0, le=65_535)
    monitor_metrics_port: int = _env("MDS_MONITOR_METRICS_PORT", default=0, ge=0, le=65_535)
    #: How old the newest row of a feed may become, `bars=5m,ticks:polygon=30s`, and the symbols that are a feed of
    #: their own, `futures=ES*|NQ*`. Without a limit a feed never counts as stopped.
    freshness: Limits = _env("MDS_FRESHNESS", default=())
    symbol_groups: SymbolGroups = _env("MDS_SYMBOL_GROUPS", default=())
    #: How the lines of every process's log look, and the least level that is logged.
    log_format: Literal["text", "json", "logfmt"] = _env("MDS_LOG_FORMAT", default="text")
    log_level: Literal["debug", "info", "warning", "error"] = _env("MDS_LOG_LEVEL", default="info")
    #: How many days a dataset's rows are kept, `ticks=30,quotes=7`; those of other datasets are kept for ever.
    retention_days: DaysByDataset = _env("MDS_RETENTION_DAYS", default={})
    #: Whether the monitor deletes by itself what is older; otherwise it only says what it would delete.
    retention_auto: bool = _env("MDS_RETENTION_AUTO", default=False)
    #: Seconds from the start of one such run to the next.
    upkeep_interval_s: float = _env("MDS_UPKEEP_INTERVAL_S", default=3_600.0, ge=1.0, le=604_800.0)
    #: By which span the tables of datasets are partitioned, `ticks=month,quotes=day`; others are plain tables.
    partitions: Spans = _env("MDS_PARTITIONS", default={})
    #: Where the upkeep keeps each partition as a Parquet file before it drops it; without it nothing is kept.
    archive_dir: Annotated[str, BeforeValidator(checks.directory)] = _env("MDS_ARCHIVE_DIR", default="")
    #: Whether rows may have times before 1900 and after 2100, which mostly are mistakes.
    any_year: bool = _env("MDS_ANY_YEAR", default=False)
    #: Files that declare datasets beside the built-in ones; without any, `datasets.toml` in the working directory.
    datasets: Files = _env("MDS_DATASETS", default=())
    #: What becomes of fields that a dataset does not know, `bars=reject,ticks=add`; before what a declaration says.
    unknown: ContractByDataset = _env("MDS_UNKNOWN", default={})
    #: The directory for the data of `mds up`'s servers and for the spools of `AsyncStoreClient`.
    home: Directory = _env("MDS_HOME", default=Path(".mds"))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take them from `_Given` only."""
        return init_settings, _Given(settings_cls)

    @field_validator("broker_url", "redis_url", mode="after")
    @classmethod
    def _complete(cls, url: str, info: ValidationInfo) -> str:
        cert_reqs, master, password = map(
            info.data.get, ("redis_ssl_cert_reqs", "sentinel_master", "sentinel_password")
        )
        return completed(url, cert_reqs=cert_reqs or "required", master=master or "", password=password or "")

    @property
    def capacities(self) -> dict[str, int]:
        """The capacity of each of `protocol.LANES`, by its queue."""
        return {QUEUE: self.queue_capacity, BACKFILL_QUEUE: self.backfill_capacity}

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
        return self.broker_url if is_redis(self.broker_url) else ""

    @property
    def own_admin_token(self) -> str:
        """ADMIN_TOKEN, unless it is a placeholder."""
        return "" if checks.is_placeholder(self.admin_token) else self.admin_token

    @property
    def closes_admin(self) -> str:
        """Why the admin endpoints are closed, in one line; empty if they have a token, or are given one."""
        if self.own_admin_token or self.environment == "development":
            return ""
        state = "a placeholder" if self.admin_token else "not set"
        return f"ADMIN_TOKEN is {state}: the admin endpoints are closed; set it to a secret"

    @property
    def bind_host(self) -> str:
        """The address of web and Flower."""
        open_to_all = self.port and self.environment == "production"  # honcho gives PORT too
        return self.host or ("0.0.0.0" if open_to_all else "127.0.0.1")  # noqa: S104  # nosec B104  # as a PaaS wants it

    @property
    def broker_tls(self) -> dict[str, str]:
        """The TLS options in the URL of a Redis (`ssl_cert_reqs`, `ssl_ca_certs`, ...); empty without TLS."""
        options = dict(parse_qsl(self.broker_url.partition("?")[2]))
        is_tls = scheme_of(self.broker_url) in ("rediss", "sentinels")
        return {name: value for name, value in options.items() if is_tls and name.startswith("ssl_")}

    @property
    def migration_url(self) -> str:
        """ADMIN_DATABASE_URL, or DATABASE_URL."""
        return self.admin_database_url or self.require_database_url()


def _required(value: str, name: str, example: str) -> str:
    if not value:
        raise ConfigurationError(
            f"{name} is not set; set it to {example}, or run `mds up`, which starts its own servers"
        )
    return value


def names() -> list[str]:
    """Return the names of all variables, of one setting the preferred first."""
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    return [str(name) for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices]
