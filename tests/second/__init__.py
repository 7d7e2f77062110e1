"""Tests of what the local cloud lacks, on a second emulator."""
