"""`nexus web`: a second front on the modules that the command stands on, served on this machine alone.

Belongs here: pages, their parts, the actions behind buttons, and who may ask for them. Does not belong here: what is
known of a deployment and how it is changed (the other modules of `ops`).
"""
