"""The runtime under faults: real code, simulated sandboxes and services. `simulate` runs and replays schedules."""
