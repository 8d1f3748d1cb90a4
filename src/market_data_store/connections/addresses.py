"""The addresses that the store's own servers listen on: what is accepted, and how an address is shown to people."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

#: What to connect to on this machine where a server listens on all addresses of one family, or of both.
_SELF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nosec B104  # nothing listens here
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def accepted_host(value: Any) -> Any:
    """Accept an address or the name of a host, without its port; raises `ValueError` for anything else."""
    if not isinstance(value, str) or not value:
        return value
    host = value.strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (_is_address(host) or _NAME.fullmatch(host)):
        raise ValueError(
            "is not an address or the name of a host, such as 0.0.0.0, :: or localhost; leave out the port"
        )
    return host


def with_port(host: str, port: int) -> str:
    """Return `host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_url(host: str, port: int) -> str:
    """Return the URL under which a browser on this machine finds a server that listens on this address."""
    return f"http://{with_port(reachable(host), port)}"


def reachable(host: str) -> str:
    """Return an address of this machine at which a server that listens on `host` answers."""
    return _SELF.get(host, host)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on this address."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
