"""Hostile messages of a grammar, each with what must become of it, and the run that counts whether it did."""
