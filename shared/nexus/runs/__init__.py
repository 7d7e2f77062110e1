"""Run records: what is stored about a run, the rules by which it changes, and what runs share.

Belongs here: records, their transitions, tallies of members, locks of unique tasks, rates, large results. Does not
belong here: sending, running, and where records are stored (`nexus.backend`).
"""
