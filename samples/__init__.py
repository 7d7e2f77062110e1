"""Generates sample media for `make run`, the tests and the benchmarks."""
