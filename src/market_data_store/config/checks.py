"""Checks of settings: values that a type cannot check, names that do not exist, and values that contradict each other.

It knows nothing of the environment and of `config.Settings`, which declares the settings with these checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from market_data_store.connections.addresses import is_loopback
from market_data_store.errors import JOB_RUNS, LETTERS

#: A variable whose name begins so is one of the store's.
PREFIX = "MDS_"
#: The built-in datasets, by their names. They are declared in `datasets`, which needs SQLAlchemy; a test compares.
DATASET_NAMES = ("bars", "ticks", "quotes", "options", "fundamentals", "news", "signals")
#: Variables without effect, and what to know of each.
REMOVED = {
    "MDS_STOCK_REDIS_TRANSPORT": "was removed in 0.5 and has no effect; delete it (the store has its own transport)",
}
#: The fewest characters of a token or of Flower's password.
LEAST_SECRET = 16
#: What examples show in place of a secret.
_PLACEHOLDER = re.compile(r"|password|secret|change[-_ ]?(me|it)|<.*>", re.IGNORECASE)
_HOST_NAME = re.compile(r"\*|\.?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.IGNORECASE)
# What Kubernetes sets in each container for a service whose name begins with mds, such as MDS_WEB_PORT_80_TCP_ADDR.
_KUBERNETES = re.compile(r"MDS_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")


def days_by_dataset(value: Any) -> Any:
    """Read `dataset=days,...`; raises `ValueError`."""
    if not isinstance(value, str):
        return value
    try:
        return {
            name.strip(): int(days) for name, days in (pair.split("=") for pair in value.split(",") if pair.strip())
        }
    except ValueError:
        raise ValueError("write dataset=days, such as ticks=30,quotes=7") from None


def contract_by_dataset(value: Any) -> Any:
    """Read `dataset=contract,...`; raises `ValueError`."""
    if not isinstance(value, str):
        return value
    pairs = [[part.strip() for part in pair.split("=")] for pair in value.split(",") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("write dataset=keep, =reject or =add, such as bars=reject,ticks=add")
    return dict(pairs)


def span_by_dataset(value: Any) -> Any:
    """Read `dataset=span,...`; raises `ValueError`."""
    if not isinstance(value, str):
        return value
    pairs = [pair.split("=") for pair in value.split(",") if pair.strip()]
    if any(len(pair) != 2 or pair[1].strip() not in ("day", "week", "month", "year") for pair in pairs):
        raise ValueError("write dataset=span with the span day, week, month or year, such as ticks=month,quotes=day")
    return {name.strip(): span.strip() for name, span in pairs}


def password(value: Any) -> Any:
    """Accept a password; raises `ValueError` for one with a line break, as a file may end with."""
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("has a line break or another character that is not printed")
    return value


def is_placeholder(secret: str) -> bool:
    """Whether a text is empty, or what examples show in place of a secret."""
    return _PLACEHOLDER.fullmatch(secret) is not None


def is_weak(secret: str) -> bool:
    """Whether a secret could be guessed."""
    return is_placeholder(secret) or len(secret) < LEAST_SECRET


def token(value: Any) -> Any:
    """Accept a bearer token, or a placeholder, which opens nothing; raises `ValueError` for another."""
    if isinstance(value, str) and not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("a token has ASCII characters only, and no spaces")
    if isinstance(value, str) and not is_placeholder(value) and is_weak(value):
        raise ValueError(f"has fewer than {LEAST_SECRET} characters; set it to what `openssl rand -hex 16` prints")
    return value


def own_token(value: Any) -> Any:
    """Accept a bearer token; raises `ValueError` for another text."""
    if isinstance(value, str) and value and is_placeholder(value):
        raise ValueError("is a placeholder; set it to what `openssl rand -hex 16` prints")
    return token(value)


def host_names(value: Any) -> Any:
    """Read names of hosts with commas between them; raises `ValueError`."""
    if not isinstance(value, str):
        return value
    names = tuple(name.strip().lower() for name in value.split(",") if name.strip())
    if not all(map(_HOST_NAME.fullmatch, names)):
        raise ValueError("write names without scheme and port, and commas between, such as mds.example.com,.internal")
    return names


def user_and_password(value: Any) -> Any:
    """Accept Flower's users and passwords; raises `ValueError`."""
    if isinstance(value, str) and value:
        pairs = [pair.partition(":") for pair in value.split(",")]
        if not value.isascii() or not all(user and colon for user, colon, _ in pairs):  # Flower compares ASCII only
            raise ValueError("write user:password in ASCII, and commas between several")
    return value


def are_own_logins(pairs: str) -> bool:
    """Whether each of these pairs of user and password has a password that nobody can guess."""
    return all(map(_is_own_login, pairs.split(",")))


def _is_own_login(pair: str) -> bool:
    user, _, secret = pair.partition(":")
    # Flower compares with hmac.compare_digest, which accepts only ASCII.
    return bool(user) and pair.isascii() and not is_weak(secret)


def file(value: Any) -> Any:
    """Accept the path of a file; raises `ValueError` if there is none."""
    if isinstance(value, str) and value and not _is(Path.is_file, value):
        raise ValueError("no such file")
    return value


def files(value: Any) -> Any:
    """Read paths of files, and names that are none, with commas between; raises `ValueError` for a missing file."""
    if not isinstance(value, str):
        return value
    paths = tuple(path.strip() for path in value.split(",") if path.strip())
    missing = [path for path in paths if not path.startswith("shipped:") and not _is(Path.is_file, path)]
    if missing:
        raise ValueError(f"{missing[0]!r}: no such file")
    return paths


def directory(value: Any) -> Any:
    """Accept the path of a directory, which need not exist; raises `ValueError` for something else."""
    if isinstance(value, str) and _is(Path.exists, value) and not _is(Path.is_dir, value):
        raise ValueError("is not a directory")
    return value


def _is(kind: Callable[[Path], bool], path: str) -> bool:
    try:
        return kind(Path(path))
    except OSError as error:
        raise ValueError(f"{error.strerror}") from None


def unknown(given: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """Yield a line for each name that begins with `MDS_` and is not a setting; `given` has names in capitals."""
    by_rest = {name.removeprefix(PREFIX): name for name in known}  # the prefix makes all of them alike
    for name in sorted(name for name in given if name.startswith(PREFIX) and name not in known):
        if _KUBERNETES.fullmatch(name) or (name.endswith("_PORT") and _KUBERNETES_PORT.match(given[name])):
            continue
        nearest = get_close_matches(name.removeprefix(PREFIX), by_rest, n=1)
        hint = f"did you mean {by_rest[nearest[0]]}?" if nearest else "delete it; docs/settings.md lists all settings"
        yield f"{name}: is not a setting; {hint}"


def removed(given: Collection[str]) -> Iterator[str]:
    """Yield a line for each variable that has no effect any more."""
    return (f"{name} {what}" for name, what in REMOVED.items() if name in given)


def contradictions(given: Mapping[str, Any], declared: Callable[[], Collection[str]]) -> Iterator[str]:
    """Yield a line for each combination that cannot work; `given` has the values of the fields of `config.Settings`.

    `declared` returns the names of the datasets that users declare.
    """
    yield from out_of_order(given["ok_at"], given["soft_above"], given["hard_from"], given["hard_until"])
    yield from _no_datasets("MDS_RETENTION_DAYS", given["retention_days"], (LETTERS, JOB_RUNS), declared)
    yield from _no_datasets("MDS_UNKNOWN", given["unknown"], (), declared)
    yield from _feeds_of_nothing(given["freshness"], given["symbol_groups"], declared)
    yield from _no_datasets("MDS_PARTITIONS", given["partitions"], (), declared)
    yield from _open_without_a_secret(given["environment"], given["host"], given["admin_token"])
    if given["http_broadcast"] and not given["http_endpoint"]:
        yield "MDS_FB_ENABLE_HTTP_BROADCAST: MDS_FB_HTTP_ENDPOINT is not set; set it to an http:// or https:// URL"


def _feeds_of_nothing(
    limits: Sequence[tuple[Any, ...]], groups: Sequence[tuple[Any, ...]], declared: Callable[[], Collection[str]]
) -> Iterator[str]:
    others = {dataset for dataset, *_ in limits} - set(DATASET_NAMES)
    for name in sorted(others - set(declared() if others else ())):
        yield f"MDS_FRESHNESS: {name!r} is not a dataset; `mds datasets` lists them"
    known = {"*", "all", "other", *(group for group, _ in groups)}
    for name in sorted({group for _, _, group, _ in limits} - known):
        yield f"MDS_FRESHNESS: {name!r} is not a group of symbols; declare it in MDS_SYMBOL_GROUPS"


def _no_datasets(
    variable: str, given: Collection[str], besides: tuple[str, ...], declared: Callable[[], Collection[str]]
) -> Iterator[str]:
    """Yield a line for each name that is neither that of a dataset nor one of those besides."""
    others = [name for name in given if name not in (*DATASET_NAMES, *besides)]
    own = sorted(declared()) if others else []
    for name in others:
        if name not in own:
            yield f"{variable}: {name!r} is not a dataset; use one of {', '.join((*DATASET_NAMES, *own, *besides))}"


def _open_without_a_secret(environment: str, host: str, admin_token: str) -> Iterator[str]:
    if environment == "development" and host and not is_loopback(host) and is_weak(admin_token):
        yield (
            f"MDS_HOST={host!r}: with MDS_ENV=development others reach this machine only if ADMIN_TOKEN is set to a "
            "secret; set it, or delete MDS_HOST or MDS_ENV"
        )


def out_of_order(ok_at: float, soft_above: float, hard_from: float, hard_until: float) -> Iterator[str]:
    """Yield a line for each order of the watermarks that does not hold."""
    if not 0 <= ok_at < soft_above <= hard_from <= 1:
        yield (
            f"watermarks: MDS_OK_AT={ok_at} < MDS_SOFT_ABOVE={soft_above} <= MDS_HARD_FROM={hard_from} must hold, "
            "and all must be between 0 and 1"
        )
    if not ok_at <= hard_until < hard_from:
        yield f"watermarks: MDS_OK_AT={ok_at} <= MDS_HARD_UNTIL={hard_until} < MDS_HARD_FROM={hard_from} must hold"
