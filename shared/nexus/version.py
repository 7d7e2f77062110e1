"""The version of this package: a client's own, and, as the stack's output `Version`, that of a deployment."""

VERSION = "0.1.0"
