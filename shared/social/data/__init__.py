"""The social network's data: one module per table, over the low-level client."""
