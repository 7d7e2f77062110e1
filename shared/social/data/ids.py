"""Ids of users, posts, comments and so on: 16 characters that sort by creation time.

Ids are opaque: any ASCII string of up to 128 characters without a slash works. Short ones are cheaper: the nightly
count reads two of them per edge, and 100 million edges are 7.5 GB with these and 11 GB with UUIDs.
"""

import os

from nexus import clock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_EPOCH_MS = 1_577_836_800_000  # 2020-01-01


def new_key(at: float | None = None, entropy: int | None = None) -> str:
    """An id: 40 bits of milliseconds since 2020 (until 2054), then 40 random bits (or `entropy`, for demo data)."""
    milliseconds = int((clock.now() if at is None else at) * 1000) - _EPOCH_MS
    random_bits = int.from_bytes(os.urandom(5)) if entropy is None else entropy & 0xFF_FFFF_FFFF
    value = (milliseconds & 0xFF_FFFF_FFFF) << 40 | random_bits
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(75, -1, -5))
