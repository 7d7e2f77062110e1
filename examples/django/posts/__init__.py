"""Posts and their pictures."""
