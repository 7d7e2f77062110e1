"""The command line: the commands that any deployment has, and their input and output. `ops.main` assembles it."""
