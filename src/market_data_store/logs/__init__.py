"""The log of a process: how its lines look (`lines`), what goes there (`process`), how a trouble is said (`repeated`).

It knows no settings and no servers. `config.starting.begin_log` starts it, by MDS_LOG_FORMAT and MDS_LOG_LEVEL.
"""

from __future__ import annotations
