"""Validates an address for SES before any work on the mail.

SES accepts only 7-bit addresses, so an internationalised domain goes out in its ASCII form (IDNA 2008, UTS 46) and an
internationalised local part cannot be mailed. Everything that could end a header line is rejected here.
"""

import re
import unicodedata
from contextlib import suppress

import idna

# RFC 5322 dot-atom. Quoted local parts ("a b"@example.com) are legal and, in practice, typing errors or attacks.
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)
_LOCAL_LIMIT = 64  # RFC 5321, 4.5.3.1.1
_TOTAL_LIMIT = 254  # RFC 5321, 4.5.3.1.3, less the angle brackets


class BadAddress(ValueError):
    """An address that cannot be mailed; the message is the reason, without the address itself."""


def checked_address(raw: str) -> str:
    """Returns the address in SES's form: `local@ascii.domain`, the domain in lower case.

    Raises BadAddress with the reason if it cannot be mailed.
    """
    if not raw or not raw.strip(" "):
        raise BadAddress("empty")
    address = raw.strip(" ")
    if any(unicodedata.category(character)[0] in "CZ" for character in address):
        raise BadAddress("contains a space or control character")
    local, at, domain = address.rpartition("@")
    if not at or not local or not domain:
        raise BadAddress("is not of the form name@domain")
    if not local.isascii():
        raise BadAddress("has a non-ASCII part before the @, which SES does not deliver")
    if len(local) > _LOCAL_LIMIT or not _LOCAL_PART.fullmatch(local):
        raise BadAddress("has a malformed part before the @")
    checked = f"{local}@{_ascii_domain(domain)}"
    if len(checked) > _TOTAL_LIMIT:
        raise BadAddress(f"is longer than {_TOTAL_LIMIT} characters")
    return checked


def as_entered(address: str) -> set[str]:
    """The forms in which a user may have entered a checked address: as it is, and with an internationalised domain."""
    local, _, domain = address.rpartition("@")
    with suppress(idna.IDNAError):
        return {address, f"{local}@{idna.decode(domain)}"}
    return {address}


def _ascii_domain(domain: str) -> str:
    try:
        ascii_domain = idna.encode(domain, uts46=True, std3_rules=True, strict=True).decode("ascii")
    except idna.IDNAError:
        raise BadAddress("has a malformed domain") from None
    labels = ascii_domain.split(".")
    if len(labels) < 2 or not labels[-1] or labels[-1].isdecimal():
        raise BadAddress("has no domain that mail can reach")
    return ascii_domain
