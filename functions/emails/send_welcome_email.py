"""send_welcome_email: a personal welcome mail to a newly registered user, at most once per user.

A user who does not exist, is suppressed or has an unmailable address is skipped with the reason. A new user may arrive
after the message, as a mirrored row does, so an unknown one is looked up again a minute later. A fault that only an
operator can fix (the sender, the account, a template) goes to the dead-letter queue, for a redrive after the fix.
"""

from mail import delivery, languages, rendering
from mail.address import BadAddress, checked_address
from mail.delivery import CannotSend, SlowDown
from mail.rendering import TemplateFault
from mail.settings import mail_settings
from nexus.errors import Reject, Retry
from nexus.worker import Run, handler_for, implements
from social import catalogue
from social.catalogue import SendWelcomeEmail, WelcomeReport
from social.data import mail_ledger, users


@implements(catalogue.send_welcome_email)
def send_welcome_email(args: SendWelcomeEmail, run: Run) -> WelcomeReport:
    """Sends the mail, or returns why not."""
    # A consistent read: the web application sends this task right after it writes the user.
    user = users.get(args.user_id, consistent=True)
    if user is None and run.attempt == 1:
        raise Retry(f"no user {args.user_id} yet", after=users.LATE)
    if user is None:
        return _skipped(args, "no such user")
    if user.suppressed:
        return _skipped(args, f"suppressed: {user.suppressed}")
    try:
        address = checked_address(user.email)
    except BadAddress as error:
        return _skipped(args, f"the address {error}")

    settings = mail_settings()
    unsubscribe_url = delivery.unsubscribe_url(user.user_id, settings)
    try:
        mail = rendering.welcome(
            languages.choose(user.locale), settings, name=user.name, unsubscribe_url=unsubscribe_url
        )
        delivery.keep_pace(run.remaining - delivery.LONGEST_SEND)
        outcome = delivery.deliver(
            mail,
            address,
            user.user_id,
            mail_ledger.WELCOME,
            settings,
            run_id=run.id,
            unsubscribe_url=unsubscribe_url,
        )
    except TemplateFault as error:
        raise Reject(f"template: {error}") from error
    except CannotSend as error:
        raise Reject(str(error)) from error
    except SlowDown as error:
        raise Retry(str(error), after=delivery.QUOTA_WAIT if error.quota else None) from error
    if outcome.outcome == "failed":
        raise Reject(outcome.reason)
    return WelcomeReport(
        user_id=args.user_id, outcome=outcome.outcome, reason=outcome.reason, message_id=outcome.message_id
    )


def _skipped(args: SendWelcomeEmail, reason: str) -> WelcomeReport:
    return WelcomeReport(user_id=args.user_id, outcome="skipped", reason=reason)


handler = handler_for(send_welcome_email)
