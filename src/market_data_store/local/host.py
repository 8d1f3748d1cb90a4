"""TCP ports of this machine, and child processes that end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable

from market_data_store.errors import ConfigurationError, MarketDataStoreError

_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing is listening on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end_with_parent(signal_number: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn` for `subprocess.Popen` that sends the child this signal when its parent ends.

    It also works when the parent ends by kill -9. Call `Popen` from the main thread only, see `local.servers`. Returns
    None on systems other than Linux, which have nothing of the kind.
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def in_child() -> None:
        # Popen calls this after setuid, which would clear the setting.
        prctl(_PR_SET_PDEATHSIG, int(signal_number))
        if os.getppid() != parent:  # the parent ended before prctl was called
            os._exit(1)

    return in_child


def require_free(port: int, option: str, host: str = "127.0.0.1") -> None:
    """Raise `MarketDataStoreError` if something is listening on the port already; port 0 means none."""
    try:
        _bind(port, host)
    except socket.gaierror as error:
        raise ConfigurationError(f"MDS_HOST={host!r}: {error.strerror}") from error
    except OSError as error:
        raise MarketDataStoreError(f"port {port}: {error.strerror}; choose another with {option}") from error


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server could listen on the port."""
    try:
        _bind(port, host)
    except OSError:
        return False
    return True


def _bind(port: int, host: str) -> None:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether something is listening on the port."""
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True
