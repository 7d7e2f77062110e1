"""The deployment's mail settings: sender, URLs of the web application, postal address.

template.yaml sets these variables from parameters and refuses to deploy to prod without them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlencode, urlsplit

from mail.address import BadAddress, checked_address
from nexus.errors import ConfigurationError
from nexus.settings import settings

IN_MEMORY = {"NEXUS_MAIL_SENDER": "hello@example.com", "NEXUS_MAIL_BASE_URL": "https://example.com"}
"""Defaults for the deployment's parameters where mail stays in this process's memory."""

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
"""The hosts where http is allowed: the local cloud's application. Elsewhere a link's token needs https."""


@dataclass(frozen=True, slots=True)
class MailSettings:
    """`sender` and `digest_sender` are bare addresses of one domain verified in SES. `base_url` is the web
    application's; rendition keys are appended to `media_url`; neither ends with a slash. `postal_address` is required
    in every mailing by CAN-SPAM (15 U.S.C. 7704(a)(5)) and similar laws.
    """

    sender: str
    digest_sender: str
    sender_name: str
    base_url: str
    media_url: str
    postal_address: str

    def page(self, *path: str) -> str:
        """The URL of a page of the web application."""
        return "/".join((self.base_url, *(quote(part, safe="") for part in path)))

    def picture(self, key: str) -> str:
        return f"{self.media_url}/{quote(key)}"

    def unsubscribe(self, token: str) -> str:
        """The URL where a GET asks for confirmation and a POST unsubscribes at once (RFC 8058)."""
        return f"{self.page('mail', 'unsubscribe')}?{urlencode({'token': token})}"


def from_environment(environment: Mapping[str, str]) -> MailSettings:
    """Reads NEXUS_MAIL_SENDER, _DIGEST_SENDER, _SENDER_NAME, _BASE_URL, _MEDIA_URL and _POSTAL_ADDRESS.

    The digest's sender defaults to `digest` at the sender's domain. Raises ConfigurationError, naming the variable, if
    one is missing or malformed.
    """
    sender = _sender(environment, "NEXUS_MAIL_SENDER", "")
    domain = sender.rpartition("@")[2]
    digest_sender = _sender(environment, "NEXUS_MAIL_DIGEST_SENDER", f"digest@{domain}")
    if digest_sender.rpartition("@")[2] != domain:
        raise ConfigurationError(f"NEXUS_MAIL_DIGEST_SENDER is not at {domain}, the domain of NEXUS_MAIL_SENDER")
    base_url = _address(environment, "NEXUS_MAIL_BASE_URL")
    return MailSettings(
        sender=sender,
        digest_sender=digest_sender,
        sender_name=environment.get("NEXUS_MAIL_SENDER_NAME") or "Nexus",
        base_url=base_url,
        media_url=_address(environment, "NEXUS_MAIL_MEDIA_URL")
        if environment.get("NEXUS_MAIL_MEDIA_URL")
        else base_url,
        postal_address=environment.get("NEXUS_MAIL_POSTAL_ADDRESS", ""),
    )


@lru_cache(maxsize=1)
def mail_settings() -> MailSettings:
    """This function's settings, read once on first use."""
    return from_environment({**IN_MEMORY, **os.environ} if settings().memory else os.environ)


def _sender(environment: Mapping[str, str], variable: str, default: str) -> str:
    try:
        return checked_address(environment.get(variable) or default)
    except BadAddress as error:
        raise ConfigurationError(f"{variable} {error}") from None


def _address(environment: Mapping[str, str], variable: str) -> str:
    value = environment.get(variable, "").rstrip("/")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(f"{variable} is {value!r}: it must be an http(s) address without query or fragment")
    if not re.fullmatch(r"[a-zA-Z0-9.:\[\]-]+", parts.netloc):  # SES would refuse List-Unsubscribe, mail by mail
        raise ConfigurationError(f"{variable} is {value!r}: write its host in ASCII, as xn--mnchen-3ya.example")
    if parts.scheme == "http" and parts.hostname not in _THIS_MACHINE:
        raise ConfigurationError(f"{variable} is {value!r}: it must be https, except on this machine")
    return value
