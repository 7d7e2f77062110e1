"""What the local cloud cannot: on a second emulator."""
