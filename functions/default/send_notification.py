"""send_notification: an in-app notification to one user, shown once even if the message is delivered twice.

Its id follows from the run's, so a repeat finds the existing one, and sorts by the time of sending.

Nothing is written for an actor whom the user has blocked, or who no longer exists: the text may name them, and a
message can be late by hours, a dead letter by two weeks. A new user may arrive after the message, as a mirrored row
does, so an unknown actor is looked up again a minute later.
"""

from nexus import clock
from nexus.errors import Reject, Retry
from nexus.ids import sortable_id
from nexus.worker import Run, handler_for, implements
from social import catalogue
from social.catalogue import NotificationSent, SendNotification
from social.data import blocks, notifications, users
from social.data.notifications import Notification

ACTOR_WAIT = 60.0
"""Seconds between the two attempts to find an actor."""


@implements(catalogue.send_notification)
def send_notification(args: SendNotification, run: Run) -> NotificationSent:
    """Writes the notification. Rejects an unknown user; an unknown actor is a reason to write none."""
    if not users.exists(args.user_id):
        raise Reject(f"no user {args.user_id}")
    if args.actor_id is not None:
        if blocks.has_blocked(args.user_id, args.actor_id):
            return NotificationSent(reason="the user has blocked the actor")
        if not users.exists(args.actor_id):
            if run.attempt == 1:
                raise Retry(f"no actor {args.actor_id} yet", after=ACTOR_WAIT)
            return NotificationSent(reason="no such actor")
    notification = Notification(
        user_id=args.user_id,
        notification_id=sortable_id(run.id, run.sent_at),
        kind=args.kind,
        text=args.text,
        created_at=int(clock.now()),
        link=args.link,
        actor_id=args.actor_id,
    )
    notifications.add(notification)
    return NotificationSent(notification_id=notification.notification_id)


handler = handler_for(send_notification)
