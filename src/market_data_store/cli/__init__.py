"""The command `mds`: each file holds the command of the same name."""
