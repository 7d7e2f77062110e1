"""What every job costs, measured."""
