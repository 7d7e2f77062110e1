"""The command line: the commands that any deployment has, and how they read and print. `ops.main` puts it together."""
