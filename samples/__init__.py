"""Sample media of our own making: for `make run`, the tests and the benchmarks."""
