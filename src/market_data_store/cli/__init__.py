"""The command `mds`: one file a command, as its name."""
