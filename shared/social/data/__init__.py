"""The social network's data: one module a table, over the low-level client."""
