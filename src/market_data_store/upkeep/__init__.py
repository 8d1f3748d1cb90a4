"""Upkeep: what the leading monitor does to the database on a schedule, one service a module."""
