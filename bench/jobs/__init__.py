"""Measures the cost of every job."""
