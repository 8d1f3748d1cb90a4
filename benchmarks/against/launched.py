"""Run a program and say what it used: the last line of output has seconds of CPU, and peak resident memory in MB.

    python -S -m benchmarks.against.launched python -c "import json"

A process of its own, and a small one: the kernel counts what the parent held at the fork as the child's peak.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run it with its output thrown away; ends as it does."""
    command = sys.argv[1:]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], command, env, file_actions=silent)
    _, status, used = os.wait4(pid, 0)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f'{{"cpu_s": {used.ru_utime + used.ru_stime}, "peak_mb": {peak / 1e6}}}')
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
