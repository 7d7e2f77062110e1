"""Run records: what is kept of a run, the rules by which it changes, and what runs share.

Belongs here: records, their transitions, tallies of members, locks of unique tasks, rates, large results. Does not
belong here: sending, running, and where records are kept (`nexus.backend`).
"""
