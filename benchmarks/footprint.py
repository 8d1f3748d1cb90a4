"""How much memory each process takes, at rest and at work: the figures of docs/deploy.md for the limits of a platform.

`python -m benchmarks.footprint` runs `mds up` with a worker of two processes in a directory of its own, sends rows in
messages of 500, then as tables of 5,000 rows, and shows for each process the most that it and its children have had
(PSS: pages that several share count once).
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from market_data_store.local import end_with_parent, free_port

#: By process: a word of its command line.
_WORDS = {"web": "gunicorn", "worker": "worker", "monitor": "monitor", "flower": "flower"}
#: Seconds until all processes are at rest.
_REST_S = 20.0
_SENDER = """
import sys, time, itertools
from market_data_store import StoreClient
kind, until = sys.argv[1], time.monotonic() + float(sys.argv[2])
row = {"provider": "p", "interval": "1m", "open": 1.5, "high": 2.5, "low": 1.0, "close": 2.0, "volume": 10.0}
with StoreClient() as store:
    for n in itertools.count():
        if time.monotonic() > until:
            break
        rows = [{**row, "symbol": f"S{n % 50}", "ts": 1_600_000_000 + 60 * (5_000 * n + i)} for i in range(5_000)]
        if kind == "rows":
            store.write("bars", rows)
        else:
            store.write_table("bars", {name: [r[name] for r in rows] for name in rows[0]})
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each kind of rows is sent (default: 30)")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as directory:
        found = _measured(Path(directory), seconds)
    print("| process | at rest | rows, 500 a message | tables of 5,000 rows |\n| --- | --- | --- | --- |")
    for name in _WORDS:
        print(f"| `{name}` | " + " | ".join(f"{found[kind][name] / 1e6:,.0f} MB" for kind in found) + " |")


def _measured(directory: Path, seconds: float) -> dict[str, dict[str, int]]:
    ports = ["--web-port", str(free_port()), "--flower-port", str(free_port())]
    command = [sys.executable, "-m", "market_data_store", "up", "--concurrency", "2", *ports]
    with (directory / "up.log").open("wb") as log:
        up = subprocess.Popen(
            command, cwd=directory, stdout=log, stderr=log, preexec_fn=end_with_parent(signal.SIGTERM)
        )
    try:
        while not (directory / ".mds/env").exists():
            if up.poll() is not None:
                raise SystemExit(f"mds up ended: {(directory / 'up.log').read_text()[-2_000:]}")
            time.sleep(0.2)
        time.sleep(_REST_S)
        found = {"rest": _sizes(up.pid)}
        for kind in ("rows", "tables"):
            sender = subprocess.Popen([sys.executable, "-c", _SENDER, kind, str(seconds)], cwd=directory)
            most = dict.fromkeys(_WORDS, 0)
            while sender.poll() is None:
                most = {name: max(most[name], size) for name, size in _sizes(up.pid).items()}
                time.sleep(0.2)
            found[kind] = most
        return found
    finally:
        up.terminate()
        up.wait(60)


def _sizes(pid: int) -> dict[str, int]:
    sizes = dict.fromkeys(_WORDS, 0)
    for process in psutil.Process(pid).children():
        try:
            command = " ".join(process.cmdline())
            name = next((name for name, word in _WORDS.items() if word in command), None)
            if name is not None:
                sizes[name] = _pss(process) + sum(_pss(child) for child in process.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
    return sizes


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    main()
