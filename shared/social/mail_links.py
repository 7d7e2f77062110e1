"""Unsubscribing from mail: what the web application calls when a reader, or a mail program, follows the link.

    from social import mail_links
    mail_links.unsubscribe(token)     # POST /mail/unsubscribe?token=...: at once, no login (RFC 8058)
    mail_links.verify(token)          # GET of the same address: shows a page with a button, and changes nothing

A token names a user and a mailing until it expires, signed with a key that only the stack's functions and the web
application can read. It needs no table, cannot be guessed, and only allows its holder to unsubscribe that user.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from nexus import clock
from nexus.errors import NexusError
from nexus.settings import settings

LIFETIME = 180 * 86_400
"""Seconds for which a link works. CAN-SPAM requires 30 days; readers may open a mail much later than that."""

KEYS_KEPT = 300.0
"""Seconds for which the keys are cached: the longest that a rotation takes to have an effect."""

_PURPOSE = b"nexus unsubscribe v1"


class InvalidToken(NexusError):
    """The token is not valid here, or has expired; the message says which. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """The contents of a token. `expires_at` is seconds since 1970."""

    user_id: str
    mailing: str
    expires_at: int


def token_for(user_id: str, mailing: str = "digest", *, now: float | None = None) -> str:
    """A token that unsubscribes this user from this mailing: about 120 URL-safe characters."""
    expires_at = int(clock.now() if now is None else now) + LIFETIME
    return _signed(Subscription(user_id, mailing, expires_at), signing_keys()[0])


def verify(token: str, *, now: float | None = None) -> Subscription:
    """The token's user and mailing. Raises InvalidToken. Changes nothing, so link scanners do no harm."""
    return _verified(token, signing_keys(), clock.now() if now is None else now)


def unsubscribe(token: str, *, now: float | None = None) -> Subscription:
    """Unsubscribes the token's user. Idempotent. Raises InvalidToken.

    A user who does not exist counts as unsubscribed.
    """
    from social.data import users

    subscription = verify(token, now=now)
    users.set_digest(subscription.user_id, False)
    return subscription


def _signed(subscription: Subscription, key: bytes) -> str:
    fields = [subscription.user_id, subscription.mailing, subscription.expires_at]
    payload = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    return f"{_encoded(payload)}.{_encoded(_signature(payload, key))}"


def _verified(token: str, keys: Sequence[bytes], now: float) -> Subscription:
    payload_text, _, signature_text = token.partition(".")
    try:
        payload, signature = _decoded(payload_text), _decoded(signature_text)
    except (binascii.Error, ValueError):
        raise InvalidToken("not a token") from None
    if not any(hmac.compare_digest(_signature(payload, key), signature) for key in keys):
        raise InvalidToken("not signed by this service")
    user_id, mailing, expires_at = json.loads(payload)
    if expires_at <= now:
        raise InvalidToken("expired")
    return Subscription(user_id, mailing, expires_at)


def _signature(payload: bytes, key: bytes) -> bytes:
    # A separate key for this purpose, so that a signature made for another is never accepted here.
    own = hmac.digest(key, _PURPOSE, hashlib.sha256)
    return hmac.digest(own, payload, hashlib.sha256)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    if not text.isascii() or "=" in text:
        raise ValueError("not base64 without padding, in ASCII")
    data = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encoded(data) != text:
        raise ValueError("not the canonical encoding of its bytes")
    return data


def signing_keys() -> Sequence[bytes]:
    """The signing key, and the previous one, which still verifies; from Secrets Manager, {stack}-mail-signing."""
    return _keys(settings().stack, int(time.monotonic() / KEYS_KEPT))


@lru_cache(maxsize=1)
def _keys(stack: str, _period: int) -> Sequence[bytes]:
    from nexus.aws.sdk import client

    secrets = client("secretsmanager")
    name = f"{stack}-mail-signing"
    found = [secrets.get_secret_value(SecretId=name)["SecretString"].encode()]
    with suppress(secrets.exceptions.ResourceNotFoundException):  # the key was never rotated
        found.append(secrets.get_secret_value(SecretId=name, VersionStage="AWSPREVIOUS")["SecretString"].encode())
    return tuple(found)


def forget_keys() -> None:
    """Clears the cached keys: for tests that change the deployment."""
    _keys.cache_clear()
