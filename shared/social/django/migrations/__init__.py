"""The table of a back-fill's progress."""
