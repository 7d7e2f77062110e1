"""How long the pages of `nexus web` take, with 100,000 runs on the local cloud."""
