"""An example of an application that leaves its work to nexus-tasks: a wall of one's own pictures and clips."""
