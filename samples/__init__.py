"""The sample media of `make run`, and builders of odd files that tests and benchmarks share."""
