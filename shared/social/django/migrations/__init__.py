"""The table of a backfill's progress."""
