"""What the run history costs, and how long a search of a million runs takes."""
