"""How long the pages of `nexus web` take, over 100,000 runs on the local cloud."""
