"""Delivers one mail to SES at most once: claim in the ledger, send, settle; and interprets SES's responses.

SES's response                what it means                            what happens
a message id                  accepted                                 the ledger says sent
throttled, daily quota        not accepted                             claim released, SlowDown: the caller waits
no connection                 not accepted                             claim released, SlowDown
the address is refused,       never accepted                           claim released, Refused with the reason
  sandbox: not verified
sender not verified, account  no mail is accepted        claim released, CannotSend: the run is rejected
  paused, no permission, ...
no answer, or an error of     may have been accepted                   the claim stays unknown, for a person to decide
  SES's own
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

from mail.rendering import Mail
from mail.settings import MailSettings
from nexus import clock
from nexus.aws.sdk import client
from nexus.aws.table import Meter
from nexus.errors import NexusError
from nexus.runs.rate_limit import RateLimiter
from nexus.settings import settings
from social import mail_links as unsubscribing
from social.data import mail_ledger
from social.data.mail_ledger import Entry, Mailing
from social.text import one_line

UNKNOWN_AFTER = 900
"""Seconds after which another run's unsettled claim counts as lost: Lambda's longest run."""

DEFAULT_RATE = 1.0
"""Mails per second if SES does not say: every account's initial rate."""

QUOTA_WAIT = 9 * 3600.0
"""Seconds to wait if the daily quota is used up: it recovers as yesterday's mails leave the 24-hour window.

Three waits, the fewest retries of a task that sends mail, are longer than that window, and SQS can hide a message for
one of them.
"""

RATE_KEPT = 300.0

LONGEST_SEND = 10.0
"""The most seconds for a claim, SES's timeout (nexus.aws) and settling together."""

IDLE = 5.0
"""Seconds of idleness after which a connection is closed. A sandbox freezes between invocations, and SES closes the
connection in the meantime; a mail sent on such a connection gets no response, so its state would be unknown for no good
reason.
"""

_THROTTLED = frozenset({"TooManyRequestsException", "ThrottlingException", "Throttling", "LimitExceededException"})
_OURS = {
    "MailFromDomainNotVerifiedException": "the MAIL FROM domain is not verified in SES",
    "AccountSuspendedException": "SES has suspended the account",
    "SendingPausedException": "sending is paused for the account or the configuration set",
    "NotFoundException": "the configuration set does not exist",
    "AccessDeniedException": "no permission to send",
    "UnrecognizedClientException": "no valid credentials",
    "InvalidClientTokenId": "no valid credentials",
    "ExpiredTokenException": "the credentials have expired",
}


class SlowDown(NexusError):
    """SES has not accepted the mail but will later. `quota`: the daily quota is used up."""

    def __init__(self, reason: str, *, quota: bool = False) -> None:
        super().__init__(reason)
        self.quota = quota


class CannotSend(NexusError):
    """SES accepts no mail until an operator changes something; the message says what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one mail, with the reason unless sent.

    `lost`: SES's response to this attempt did not arrive. `earlier`: the ledger had the mail already.
    """

    outcome: Literal["sent", "skipped", "unknown", "failed"]
    reason: str | None = None
    message_id: str | None = None
    lost: bool = False
    earlier: bool = False


def send_rate() -> float:
    """The mails per second that SES allows this account (GetAccount is limited to one call a second).

    Raises CannotSend if sending is off, SlowDown if SES is busy.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        account = client("sesv2").get_account()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _OURS:
            raise CannotSend(_OURS[code]) from None
        raise SlowDown(f"GetAccount: {code}") from None
    except BotoCoreError as error:
        raise SlowDown(f"GetAccount: {type(error).__name__}") from None
    if not account.get("SendingEnabled", True):
        raise CannotSend(_OURS["SendingPausedException"])
    return account.get("SendQuota", {}).get("MaxSendRate") or DEFAULT_RATE


def known_rate() -> float:
    """SES's rate for this account, cached for five minutes; the last known one while SES is busy.

    Raises SlowDown if none is known yet, as when several sandboxes start at once: a guess that is too low would take
    up the time of the others' mails too.
    """
    global _rate, _rate_until  # noqa: PLW0603 - of the sandbox
    if _rate is None or time.monotonic() >= _rate_until:
        try:
            _rate = send_rate()
        except SlowDown:
            if _rate is None:
                raise
        _rate_until = time.monotonic() + RATE_KEPT
    return _rate


_rate: float | None = None
_rate_until = 0.0


class Pace:
    """The rate limit shared by all sandboxes. Thread-safe."""

    def __init__(self, per_second: float) -> None:
        self._limiter = RateLimiter("ses", per_second)
        self._lock = threading.Lock()

    def wait(self, patience: float) -> bool:
        """Waits for permission to send one mail. False if that takes more than `patience` seconds."""
        end = time.monotonic() + patience
        if not self._lock.acquire(timeout=max(0.0, patience)):
            return False
        try:
            return self._limiter.acquire(max(0.0, end - time.monotonic()))
        finally:
            self._lock.release()


@lru_cache(maxsize=1)
def pace(per_second: float) -> Pace:
    """The sandbox's single Pace, so that its reservations survive between invocations."""
    return Pace(per_second)


def keep_pace(patience: float) -> None:
    """Waits for permission to send one mail, at the account's rate. Raises SlowDown after `patience` seconds."""
    if not pace(known_rate()).wait(patience):
        raise SlowDown("SES's rate is used up by other mails")


def deliver(
    mail: Mail,
    address: str,
    user_id: str,
    mailing: Mailing,
    mail_settings: MailSettings,
    *,
    run_id: str,
    unsubscribe_url: str,
    posts: Sequence[str] = (),
    meter: Meter | None = None,
) -> Outcome:
    """Sends the mail unless it is in the ledger. Raises SlowDown or CannotSend; neither has sent anything."""
    claim = mail_ledger.claim(mailing, user_id, run_id, int(clock.now()), posts, meter=meter)
    if isinstance(claim, Entry):
        return earlier_outcome(claim, run_id)
    request = _request(mail, address, user_id, mailing, mail_settings=mail_settings, unsubscribe=unsubscribe_url)
    try:
        message_id = _send(request, address)
    except (SlowDown, CannotSend):
        claim.released(meter=meter)
        raise
    except _Refused as refused:
        claim.released(meter=meter)
        return Outcome("failed", str(refused))
    except _NoAnswer as lost:
        return Outcome("unknown", str(lost), lost=True)
    claim.sent(message_id, int(clock.now()), meter=meter)
    return Outcome("sent", message_id=message_id)


def earlier_outcome(entry: Entry, run_id: str) -> Outcome:
    """The outcome for a run whose mail already has an entry: its own mail of an earlier attempt counts as sent."""
    own = entry.run_id == run_id
    if entry.status == "sent" and own:
        return Outcome("sent", message_id=entry.message_id, earlier=True)
    if entry.status == "sent":
        return Outcome("skipped", "already sent", earlier=True)
    if not own and clock.now() - entry.claimed_at < UNKNOWN_AFTER:
        return Outcome("skipped", "being sent by another run", earlier=True)
    return Outcome("unknown", "claimed before, but SES's response was never recorded", earlier=True)


def one_click(unsubscribe_url: str) -> Sequence[Mapping[str, str]]:
    """The two headers of RFC 8058. SES signs them with DKIM, as section 4 requires, for an identity with Easy DKIM."""
    return (
        {"Name": "List-Unsubscribe", "Value": f"<{unsubscribe_url}>"},
        {"Name": "List-Unsubscribe-Post", "Value": "List-Unsubscribe=One-Click"},
    )


def unsubscribe_url(user_id: str, mail_settings: MailSettings) -> str:
    """The URL that unsubscribes this user from the digest, for the link and for one-click."""
    return mail_settings.unsubscribe(unsubscribing.token_for(user_id))


class _Refused(Exception):
    """SES will never accept this mail."""


class _NoAnswer(Exception):
    """SES may have accepted the mail."""


def _request(
    mail: Mail, address: str, user_id: str, mailing: Mailing, *, mail_settings: MailSettings, unsubscribe: str
) -> dict[str, Any]:
    def part(text: str) -> dict[str, str]:
        return {"Data": text, "Charset": "UTF-8"}

    # The last two are for Feedback-ID, which Google's Postmaster Tools use to report complaints.
    tags = [
        {"Name": "mailing", "Value": mailing.kind},
        {"Name": "ses:feedback-id-a", "Value": mailing.kind},
        {"Name": "ses:feedback-id-b", "Value": settings().stack},
    ]
    if mailing.period != "-":
        tags.append({"Name": "period", "Value": mailing.period})
    if len(user_id) <= 256 and user_id.isascii() and user_id.replace("-", "").replace("_", "").isalnum():
        tags.append({"Name": "user_id", "Value": user_id})
    headers = list(one_click(unsubscribe))
    if mailing.kind == "digest":
        headers.append({"Name": "List-Id", "Value": _list_id(mail_settings)})
    return {
        "FromEmailAddress": sender(mailing.kind, mail_settings),
        "Destination": {"ToAddresses": [address]},
        "Content": {
            "Simple": {
                "Subject": part(mail.subject),
                "Body": {"Text": part(mail.text), "Html": part(mail.html)},
                "Headers": headers,
            }
        },
        "ConfigurationSetName": f"{settings().stack}-mail",
        "EmailTags": tags,
    }


def sender(kind: str, mail_settings: MailSettings) -> str:
    """The From field: the product's name, and a separate address for each mailing, so that readers can filter it."""
    address = mail_settings.digest_sender if kind == "digest" else mail_settings.sender
    return f"{_phrase(mail_settings.sender_name)} <{address}>"


def _list_id(mail_settings: MailSettings) -> str:
    """The digest's List-Id (RFC 2919), in the web application's domain."""
    return f"{_phrase(mail_settings.sender_name)} <digest.{urlsplit(mail_settings.base_url).hostname}>"


def _phrase(text: str) -> str:
    """A name for a header: quoted if necessary, or in encoded words of at most 75 characters (RFC 2047, 2)."""
    from email.header import Header
    from email.utils import quote

    name = one_line(text)
    if not name.isascii():
        return Header(name, "utf-8", maxlinelen=75).encode(linesep="")
    return name if name.replace(" ", "").isalnum() else f'"{quote(name)}"'


_last_used = 0.0
_connecting = threading.Lock()


def _connected() -> Any:
    """The SES client, without connections that have been idle for IDLE seconds."""
    global _last_used  # noqa: PLW0603 - of the sandbox, as its connections are
    ses = client("sesv2")
    with _connecting:  # one thread closes them before another takes one
        if time.monotonic() - _last_used > IDLE:
            ses.close()  # the client reconnects
        _last_used = time.monotonic()
    return ses


def _send(request: Mapping[str, Any], address: str) -> str:
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
        NoCredentialsError,
        ProxyConnectionError,
    )

    ses = _connected()
    try:
        message_id: str = ses.send_email(**request)["MessageId"]
    except ClientError as error:
        raise _meaning(error, address) from None
    except NoCredentialsError:
        raise CannotSend("no credentials") from None
    except (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError) as error:
        raise SlowDown(f"SES cannot be reached: {type(error).__name__}") from None
    except BotoCoreError as error:
        raise _NoAnswer(f"no response from SES: {type(error).__name__}") from None
    return message_id


def _meaning(error: Any, address: str) -> Exception:
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", "") or code
    if code in _THROTTLED:
        return SlowDown(message, quota="daily" in message.lower())
    if code in _OURS:
        return CannotSend(f"{_OURS[code]}: {message}")
    if code == "MessageRejected" and "not verified" in message:
        # SES names every identity that is not verified. In the sandbox that may be the recipient.
        failed = message.rpartition(":")[2].lower()
        if address.lower() in failed and not failed.replace(address.lower(), "").strip(" ,"):
            return _Refused("sandbox: the recipient is not verified")
        return CannotSend("the sender is not verified in SES")
    if code == "MessageRejected" and ("paused" in message or "suspended" in message):  # by AWS, for the whole account
        return CannotSend(message)
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500:
        return _NoAnswer(f"SES failed: {code}")
    return _Refused(f"SES refused it: {code}: {message.replace(address, 'the address')}")
