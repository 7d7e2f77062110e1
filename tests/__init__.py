"""The tests: unit (in process), integration and end to end (against the local cloud)."""
