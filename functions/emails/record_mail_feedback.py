"""record_mail_feedback: a bounce or complaint from SES suppresses the user's address, so it gets no more mail.

SES publishes both to EventBridge (template.yaml: MailFeedbackRule), whose rule turns them into runs of this task. Only
a permanent bounce counts: a full mailbox, or an outage, is not the address's fault. The formats are in the Amazon SES
Developer Guide, "Examples of event data".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from mail.address import BadAddress, as_entered, checked_address
from nexus.errors import Reject
from nexus.values import described, faults_of
from nexus.worker import Run, handler_for, implements
from social import catalogue
from social.catalogue import FeedbackReport, RecordMailFeedback
from social.data import users


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class Recipient(_Part):
    """One address in the notification. It may not be the one that was mailed, but one to which that forwards."""

    email_address: str


class Bounce(_Part):
    """`bounce_type` is Permanent, Transient or Undetermined."""

    bounce_type: str
    bounced_recipients: Sequence[Recipient] = ()


class Complaint(_Part):
    """`complaint_feedback_type` is abuse, fraud, virus, not-spam, other, or absent."""

    complaint_feedback_type: str | None = None
    complained_recipients: Sequence[Recipient] = ()


class SentMail(_Part):
    """The mail, with the tags that we set, and the address that it was sent to."""

    destination: Sequence[str] = ()
    tags: Mapping[str, Sequence[str]] = Field(default_factory=dict)


class Notification(_Part):
    """SES's event, or the SNS form of it (notificationType)."""

    event_type: str = ""
    notification_type: str = ""
    mail: SentMail = Field(default_factory=SentMail)
    bounce: Bounce | None = None
    complaint: Complaint | None = None


@implements(catalogue.record_mail_feedback)
def record_mail_feedback(args: RecordMailFeedback, run: Run) -> FeedbackReport:
    """Suppresses the recipient, unless the user's address has changed since."""
    notification = read(args.notification)
    suppress, reason, addresses = verdict(notification)
    if not suppress:
        return FeedbackReport(suppressed=0, reason=reason)
    suppressed = 0
    for user_id, address in _users(notification, addresses):
        user = users.get(user_id, consistent=True)
        if user is not None and _same(user.email, address):
            suppressed += users.suppress(user_id, reason)
    run.logger.info("mail feedback", reason=reason, addresses=len(addresses), suppressed=suppressed)
    return FeedbackReport(suppressed=suppressed, reason=reason)


def read(notification: Mapping[str, Any]) -> Notification:
    """Parses the notification. Raises Reject if it is invalid."""
    try:
        return Notification.model_validate(notification)
    except ValidationError as error:
        raise Reject(f"not an SES notification: {described(faults_of(error))}") from None


def verdict(notification: Notification) -> tuple[bool, str, Sequence[str]]:
    """(whether to suppress, the reason, the addresses). Raises Reject if it is neither a bounce nor a complaint."""
    match notification.event_type or notification.notification_type:
        case "Bounce" if notification.bounce is not None:
            bounce = notification.bounce
            kind = f"{bounce.bounce_type.lower()} bounce"
            addresses = [recipient.email_address for recipient in bounce.bounced_recipients]
            return bounce.bounce_type == "Permanent", "bounce" if bounce.bounce_type == "Permanent" else kind, addresses
        case "Complaint" if notification.complaint is not None:
            complaint = notification.complaint
            addresses = [recipient.email_address for recipient in complaint.complained_recipients]
            if complaint.complaint_feedback_type == "not-spam":
                return False, "not spam", addresses
            return True, "complaint", addresses
        case other:
            raise Reject(f"neither a bounce nor a complaint: {other or 'no type'}")


def _users(notification: Notification, addresses: Sequence[str]) -> set[tuple[str, str]]:
    """(user, mailed address) of those affected: by the mail's user tag, else by the address."""
    destination = notification.mail.destination
    given = destination if len(destination) == 1 else addresses
    mailed = [address.rpartition("<")[2].rstrip("> ") for address in given]
    tagged = notification.mail.tags.get("user_id", ())
    if len(tagged) == 1 and len(mailed) == 1:
        return {(tagged[0], mailed[0])}
    return {(user_id, one) for one in mailed for form in as_entered(one) for user_id in users.by_email(form)}


def _same(stored: str, mailed: str) -> bool:
    try:
        return users.normal_email(checked_address(stored)) == users.normal_email(mailed)
    except BadAddress:
        return False


handler = handler_for(record_mail_feedback)
