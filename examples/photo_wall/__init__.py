"""An example application that uses nexus-tasks: a wall of the user's own pictures and clips."""
