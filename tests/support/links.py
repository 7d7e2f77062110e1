"""Finds what mail programs turn into links, with linkify-it: every top-level domain, addresses, IPs."""

from functools import cache

from linkify_it import LinkifyIt
from linkify_it.tlds import TLDS


@cache
def _linkifier() -> LinkifyIt:
    return LinkifyIt().tlds(TLDS).set({"fuzzy_ip": True, "fuzzy_link": True, "fuzzy_email": True})


def live_links(text: str) -> list[str]:
    """The parts of a plain text that a program would turn into links."""
    return [match.raw for match in _linkifier().match(text) or ()]
