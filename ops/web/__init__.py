"""`nexus web`: a web front end to the modules behind the command, served on this machine only.

Belongs here: pages, their parts, the actions behind buttons, and access control. Does not belong here: reading and
changing a deployment (the other modules of `ops`).
"""
