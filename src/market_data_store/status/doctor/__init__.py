"""Checks of everything that support would ask for, as `mds doctor` and `mds release` run them.

A family of checks asks one part: the settings, this machine, Postgres, the broker, the processes. A check changes
nothing, and returns findings: what it saw, how bad that is, and what to do.
"""
