"""This package's version: a client's own, and, as the stack's output `Version`, a deployment's."""

VERSION = "0.1.0"
